// Hash tables with open addressing, filled by compare-and-swap of 32 and of
// 64 bits; they stay on the device and grow with every iteration.
#include <algorithm>
#include <map>

#include "arrays.h"

constexpr unsigned kEmpty = 0xffffffffu;

__host__ __device__ unsigned Hash(unsigned key) {
  key ^= key >> 16;
  key *= 0x7feb352du;
  key ^= key >> 15;
  key *= 0x846ca68bu;
  return key ^ (key >> 16);
}

// Counts how often each key came: key and count are words of their own.
__global__ void Count(unsigned* keys, unsigned* counts, unsigned mask,
                      const unsigned* in, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  for (unsigned slot = Hash(in[i]) & mask;; slot = (slot + 1) & mask) {
    const unsigned seen = atomicCAS(&keys[slot], kEmpty, in[i]);
    if (seen == kEmpty || seen == in[i]) {
      atomicAdd(&counts[slot], 1u);
      return;
    }
  }
}

// Keeps the largest value of each key: both in one 64-bit word.
__global__ void KeepLargest(unsigned long long* table, unsigned mask,
                            const unsigned* in, int n, unsigned salt) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const unsigned value = Hash(i ^ salt);
  const unsigned long long pair =
      static_cast<unsigned long long>(in[i]) << 32 | value;
  unsigned slot = Hash(in[i] + 1) & mask;
  unsigned long long old = table[slot];
  while (true) {
    if (old != ~0ull && old >> 32 != in[i]) {
      slot = (slot + 1) & mask;
      old = table[slot];
      continue;
    }
    if (old != ~0ull && static_cast<unsigned>(old) >= value) return;
    const unsigned long long seen = atomicCAS(&table[slot], old, pair);
    if (seen == old) return;
    old = seen;
  }
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const unsigned slots = 4096;
  const int n = 1500;
  unsigned* keys = Allocate<unsigned>(slots);
  unsigned* counts = Allocate<unsigned>(slots);
  auto* largest = Allocate<unsigned long long>(slots);
  unsigned* in = Allocate<unsigned>(n);
  CUDA(cudaMemset(keys, 0xff, slots * sizeof(unsigned)));
  CUDA(cudaMemset(counts, 0, slots * sizeof(unsigned)));
  CUDA(cudaMemset(largest, 0xff, slots * sizeof(*largest)));
  std::map<unsigned, unsigned> want_counts, want_largest;
  Digest digest;
  Random random(47);
  for (int it = 0; it < iterations; ++it) {
    std::vector<unsigned> host(n);
    for (unsigned& x : host) x = random.Next() % 3000 * 1021;
    Upload(in, host);
    Count<<<(n + 127) / 128, 128>>>(keys, counts, slots - 1, in, n);
    KeepLargest<<<(n + 127) / 128, 128>>>(largest, slots - 1, in, n, it);
    for (int i = 0; i < n; ++i) {
      ++want_counts[host[i]];
      unsigned& best = want_largest[host[i]];
      best = std::max(best, Hash(i ^ it));
    }
    // Where a key lies depends on who was first; what is stored does not.
    const auto got_keys = Download(keys, slots);
    const auto got_counts = Download(counts, slots);
    std::map<unsigned, unsigned> got, got_largest;
    for (unsigned s = 0; s < slots; ++s) {
      if (got_keys[s] != kEmpty) {
        EXPECT(got.emplace(got_keys[s], got_counts[s]).second);
      }
    }
    EXPECT(got == want_counts);
    for (const unsigned long long pair : Download(largest, slots)) {
      if (pair != ~0ull) {
        EXPECT(got_largest.emplace(pair >> 32, static_cast<unsigned>(pair))
                   .second);
      }
    }
    EXPECT(got_largest == want_largest);
    for (const auto& [key, count] : got) {
      digest.AddValue(key * count + got_largest[key]);
    }
    Progress(it, iterations);
  }
  return digest.Pass();
}
