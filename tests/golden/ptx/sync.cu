// Threads that work together: groups, grids, a scan in one pass.
// golden: sm_80 sm_100
#include <cooperative_groups.h>

#include <cassert>
#include <cstdio>

namespace cg = cooperative_groups;

// Each round needs all of the round before.
extern "C" __global__ void grid_rounds(int* cells, int n, int rounds) {
  const cg::grid_group grid = cg::this_grid();
  const int i = static_cast<int>(grid.thread_rank());
  for (int round = 0; round < rounds; ++round) {
    int* from = cells + (round & 1) * n;
    int* to = cells + (1 - (round & 1)) * n;
    if (i < n) to[i] = from[i] + from[(i + 1) % n] - from[(i + n - 7) % n];
    grid.sync();
  }
}

// Lanes of one value elect a leader that counts for all of them.
extern "C" __global__ void grouped_count(const int* in, int n, int* counts) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int value = in[i] & 7;
  if (value < 6) {
    const cg::coalesced_group some = cg::coalesced_threads();
    const auto same = cg::labeled_partition(some, value);
    if (same.thread_rank() == 0) {
      atomicAdd(&counts[value], static_cast<int>(same.size()));
    }
  }
  const cg::coalesced_group all = cg::coalesced_threads();
  if (all.any(value == 7) && all.thread_rank() == 0) atomicAdd(&counts[7], 1);
}

extern "C" __global__ void tile_sums(const int* in, int* out) {
  const auto tile = cg::tiled_partition<8>(cg::this_thread_block());
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  int value = in[i];
  for (int by = tile.size() / 2; by > 0; by /= 2) {
    value += tile.shfl_down(value, by);
  }
  if (tile.thread_rank() == 0) out[i / 8] = value;
}

// Decoupled look-back: a block adds up what the blocks before it have published.
struct Status {
  int state;  // 1: the block's own sum, 2: with all before it
  int sum;
};
extern "C" __global__ void scan(const int* in, int* out, int n,
                                volatile unsigned long long* status,
                                unsigned* next) {
  __shared__ int sums[256];
  __shared__ unsigned block;
  __shared__ int before;
  if (threadIdx.x == 0) block = atomicAdd(next, 1);
  __syncthreads();
  const int i = static_cast<int>(block * blockDim.x + threadIdx.x);
  sums[threadIdx.x] = i < n ? in[i] : 0;
  for (unsigned by = 1; by < blockDim.x; by *= 2) {
    __syncthreads();
    const int more = threadIdx.x >= by ? sums[threadIdx.x - by] : 0;
    __syncthreads();
    sums[threadIdx.x] += more;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    const unsigned own = static_cast<unsigned>(sums[blockDim.x - 1]);
    status[block] = 1ull << 32 | own;
    unsigned sum = 0;
    for (int b = static_cast<int>(block) - 1; b >= 0;) {
      const unsigned long long seen = status[b];
      if (seen >> 32 == 0) continue;
      sum += static_cast<unsigned>(seen);
      if (seen >> 32 == 2) break;
      --b;
    }
    status[block] = 2ull << 32 | (sum + own);
    before = static_cast<int>(sum);
  }
  __syncthreads();
  if (i < n) out[i] = before + sums[threadIdx.x];
}

extern "C" __global__ void list(int* out) {
  const int i = threadIdx.x;
  int* nodes = static_cast<int*>(malloc(4 * sizeof(int)));
  assert(nodes != nullptr);
  for (int k = 0; k < 4; ++k) nodes[k] = i * k;
  out[i] = nodes[1] + nodes[2] + nodes[3];
  free(nodes);
  if (i == 5) printf("thread %d has %d, %s, %.2f\n", i, out[i], "text", 0.5);
}
