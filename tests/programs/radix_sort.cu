// Least-significant-digit radix sort of keys with values: a histogram per block,
// a scan over digits and blocks, a stable scatter by ballots.
#include <algorithm>

#include "arrays.h"

constexpr int kBits = 4;
constexpr int kDigits = 1 << kBits;
constexpr int kBlock = 128;
constexpr int kWarps = kBlock / 32;

__global__ void Count(const unsigned* keys, int n, int shift,
                      unsigned* counts) {
  __shared__ unsigned bins[kDigits];
  if (threadIdx.x < kDigits) bins[threadIdx.x] = 0;
  __syncthreads();
  const int i = blockIdx.x * kBlock + threadIdx.x;
  if (i < n) atomicAdd(&bins[(keys[i] >> shift) % kDigits], 1u);
  __syncthreads();
  if (threadIdx.x < kDigits) {
    counts[threadIdx.x * gridDim.x + blockIdx.x] = bins[threadIdx.x];
  }
}

// Exclusive scan of `n` numbers by one block.
__global__ void Scan(unsigned* data, int n) {
  __shared__ unsigned part[kBlock];
  unsigned carry = 0;
  for (int base = 0; base < n; base += kBlock) {
    const int i = base + threadIdx.x;
    const unsigned mine = i < n ? data[i] : 0;
    part[threadIdx.x] = mine;
    for (int d = 1; d < kBlock; d *= 2) {
      __syncthreads();
      const unsigned left = threadIdx.x >= d ? part[threadIdx.x - d] : 0;
      __syncthreads();
      part[threadIdx.x] += left;
    }
    __syncthreads();
    if (i < n) data[i] = carry + part[threadIdx.x] - mine;
    carry += part[kBlock - 1];
    __syncthreads();
  }
}

__global__ void Scatter(const unsigned* keys, const unsigned* values, int n,
                        int shift, const unsigned* offsets,
                        unsigned* out_keys, unsigned* out_values) {
  __shared__ unsigned before[kWarps][kDigits];
  const int i = blockIdx.x * kBlock + threadIdx.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int k = threadIdx.x; k < kWarps * kDigits; k += kBlock) {
    before[k / kDigits][k % kDigits] = 0;
  }
  __syncthreads();
  const bool valid = i < n;
  const unsigned key = valid ? keys[i] : 0;
  const unsigned digit = valid ? (key >> shift) % kDigits : kDigits;
  const unsigned same = __match_any_sync(0xffffffffu, digit);
  const unsigned rank = __popc(same & ((1u << lane) - 1));
  if (valid && rank == 0) before[warp][digit] = __popc(same);
  __syncthreads();
  if (!valid) return;
  unsigned at = offsets[digit * gridDim.x + blockIdx.x] + rank;
  for (int w = 0; w < warp; ++w) at += before[w][digit];
  out_keys[at] = key;
  out_values[at] = values[i];
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  const int n = 3000, blocks = (n + kBlock - 1) / kBlock;
  unsigned* keys = Allocate<unsigned>(n);
  unsigned* values = Allocate<unsigned>(n);
  unsigned* keys_b = Allocate<unsigned>(n);
  unsigned* values_b = Allocate<unsigned>(n);
  unsigned* counts = Allocate<unsigned>(kDigits * blocks);
  Digest digest;
  Random random(11);
  for (int it = 0; it < iterations; ++it) {
    std::vector<unsigned> host(n), index(n);
    for (int i = 0; i < n; ++i) {
      host[i] = random.Next() % (it % 3 ? 1u << 16 : 1000);
      index[i] = i;
    }
    Upload(keys, host);
    Upload(values, index);
    for (int shift = 0; shift < 16; shift += kBits) {
      Count<<<blocks, kBlock>>>(keys, n, shift, counts);
      Scan<<<1, kBlock>>>(counts, kDigits * blocks);
      Scatter<<<blocks, kBlock>>>(keys, values, n, shift, counts, keys_b,
                                  values_b);
      std::swap(keys, keys_b);
      std::swap(values, values_b);
    }
    std::stable_sort(index.begin(), index.end(), [&](unsigned a, unsigned b) {
      return host[a] < host[b];
    });
    const auto got = Download(values, n);
    ExpectSame(got, index, "permutation");
    std::sort(host.begin(), host.end());
    ExpectSame(Download(keys, n), host, "keys");
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
