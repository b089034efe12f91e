// Cooperative groups: tiles of a warp, coalesced threads, labelled partitions,
// collective reductions and scans.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>

#include "arrays.h"

namespace cg = cooperative_groups;

constexpr int kBlock = 128;

struct Results {
  int tile4[kBlock];      // sum over tiles of 4
  int tile16_max[kBlock]; // largest over tiles of 16
  int odd_rank[kBlock];   // position among the odd ones of the warp, or -1
  int odd_sum[kBlock];
  int label_size[kBlock]; // how many of the warp have the same label
  int binary_sum[kBlock];
  int scan[kBlock];       // inclusive over the warp
  int shuffled[kBlock];   // from the right neighbour in tiles of 8
  unsigned any;
  int block_sum;
};

__global__ void Groups(const int* in, Results* results) {
  Results& r = results[blockIdx.x];
  const cg::thread_block block = cg::this_thread_block();
  const int i = block.thread_rank();
  const int x = in[blockIdx.x * kBlock + i];
  const auto warp = cg::tiled_partition<32>(block);
  const auto tile4 = cg::tiled_partition<4>(warp);
  const auto tile8 = cg::tiled_partition<8>(warp);
  const auto tile16 = cg::tiled_partition<16>(block);
  r.tile4[i] = cg::reduce(tile4, x, cg::plus<int>());
  r.tile16_max[i] = cg::reduce(tile16, x, cg::greater<int>());
  r.odd_rank[i] = -1;
  r.odd_sum[i] = 0;
  if (x % 2 != 0) {
    const cg::coalesced_group odd = cg::coalesced_threads();
    r.odd_rank[i] = odd.thread_rank();
    r.odd_sum[i] = cg::reduce(odd, x, cg::plus<int>());
  }
  const auto same = cg::labeled_partition(warp, x % 5);
  r.label_size[i] = same.size();
  const auto side = cg::binary_partition(warp, x > 0);
  r.binary_sum[i] = cg::reduce(side, x, cg::plus<int>());
  r.scan[i] = cg::inclusive_scan(warp, x);
  r.shuffled[i] = tile8.shfl_down(x, 1);
  const int warp_sum = cg::reduce(warp, x, cg::plus<int>());
  __shared__ int sums[kBlock / 32];
  cg::invoke_one(warp, [&] { sums[warp.meta_group_rank()] = warp_sum; });
  block.sync();
  if (block.thread_rank() == 0) {
    r.block_sum = sums[0] + sums[1] + sums[2] + sums[3];
  }
  const bool any = warp.any(x % 7 == 0);
  if (i == 0) r.any = any;
}

Results OnHost(const int* x) {
  Results r = {};
  for (int i = 0; i < kBlock; ++i) {
    const int warp = i / 32 * 32;
    r.tile16_max[i] = x[i];
    r.odd_rank[i] = x[i] % 2 != 0 ? 0 : -1;
    for (int k = warp; k < warp + 32; ++k) {
      if (k / 4 == i / 4) r.tile4[i] += x[k];
      if (k / 16 == i / 16) {
        r.tile16_max[i] = x[k] > r.tile16_max[i] ? x[k] : r.tile16_max[i];
      }
      if (x[i] % 2 != 0 && x[k] % 2 != 0) {
        r.odd_sum[i] += x[k];
        r.odd_rank[i] += k < i;
      }
      r.label_size[i] += x[k] % 5 == x[i] % 5;
      if ((x[k] > 0) == (x[i] > 0)) r.binary_sum[i] += x[k];
      if (k <= i) r.scan[i] += x[k];
      if (i < 32 && x[k] % 7 == 0) r.any = 1;
    }
    r.shuffled[i] = i % 8 == 7 ? x[i] : x[i + 1];
    r.block_sum += x[i];
  }
  return r;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int blocks = 4, n = blocks * kBlock;
  int* in = Allocate<int>(n);
  Results* out = Allocate<Results>(blocks);
  Digest digest;
  Random random(71);
  for (int it = 0; it < iterations; ++it) {
    std::vector<int> host(n);
    for (int& x : host) x = static_cast<int>(random.Next() % 2001) - 1000;
    Upload(in, host);
    CUDA(cudaMemset(out, 0, blocks * sizeof(Results)));
    Groups<<<blocks, kBlock>>>(in, out);
    const auto got = Download(out, blocks);
    std::vector<Results> want;
    for (int b = 0; b < blocks; ++b) want.push_back(OnHost(&host[b * kBlock]));
    ExpectSame(got, want, "block");
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
