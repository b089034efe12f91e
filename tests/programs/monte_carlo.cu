// Philox 4x32-10 random numbers (Salmon et al., "Parallel random numbers: as
// easy as 1, 2, 3", 2011) for an estimate of pi and of an option's price.
#include "arrays.h"

struct Four {
  unsigned v[4];
};

__host__ __device__ unsigned High(unsigned a, unsigned b) {
  return static_cast<unsigned>(
      (static_cast<unsigned long long>(a) * b) >> 32);
}

__host__ __device__ Four Philox(Four counter, unsigned key0, unsigned key1) {
  for (int round = 0; round < 10; ++round) {
    const unsigned h0 = High(0xD2511F53u, counter.v[0]);
    const unsigned l0 = 0xD2511F53u * counter.v[0];
    const unsigned h1 = High(0xCD9E8D57u, counter.v[2]);
    const unsigned l1 = 0xCD9E8D57u * counter.v[2];
    counter = {{h1 ^ counter.v[1] ^ key0, l1, h0 ^ counter.v[3] ^ key1, l0}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

__host__ __device__ unsigned Inside(const Four& r) {
  unsigned hits = 0;
  for (int k = 0; k < 4; k += 2) {
    const unsigned long long x = r.v[k] >> 1, y = r.v[k + 1] >> 1;
    hits += x * x + y * y < (1ull << 62);
  }
  return hits;
}

constexpr int kRounds = 8;

__global__ void Estimate(unsigned seed, unsigned long long* hits,
                         double* payoff) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned mine = 0;
  for (unsigned k = 0; k < kRounds; ++k) {
    mine += Inside(Philox({{i, k, 0, 0}}, seed, 42));
  }
  for (int d = 16; d > 0; d /= 2) mine += __shfl_down_sync(~0u, mine, d);
  if (threadIdx.x % 32 == 0) atomicAdd(hits, mine);
  // One path: Box-Muller, then a call on the end of a geometric walk.
  const Four r = Philox({{i, 0, 1, 0}}, seed, 42);
  const double u = (r.v[0] + 1.0) / 4294967297.0;
  const double angle = r.v[1] / 4294967296.0;
  const double normal = sqrt(-2 * log(u)) * cospi(2 * angle);
  payoff[i] = fmax(0.0, 100 * exp(0.03 + 0.2 * normal) - 100);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int block = 128, n = 8 * block;
  // The generator's published test vectors.
  const Four zero = Philox({{0, 0, 0, 0}}, 0, 0);
  EXPECT(zero.v[0] == 0x6627e8d5u && zero.v[1] == 0xe169c58du &&
         zero.v[2] == 0xbc57ac4cu && zero.v[3] == 0x9b00dbd8u);
  auto* hits = Allocate<unsigned long long>(1);
  double* payoff = Allocate<double>(n);
  CUDA(cudaMemset(hits, 0, sizeof(*hits)));
  unsigned long long want = 0;
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Estimate<<<n / block, block>>>(it, hits, payoff);
    const auto paid = Download(payoff, n);
    for (unsigned i = 0; i < n; ++i) {
      for (unsigned k = 0; k < kRounds; ++k) {
        want += Inside(Philox({{i, k, 0, 0}}, it, 42));
      }
      const Four r = Philox({{i, 0, 1, 0}}, it, 42);
      const double u = (r.v[0] + 1.0) / 4294967297.0;
      const double angle = r.v[1] / 4294967296.0;
      const double normal = std::sqrt(-2 * std::log(u)) *
                            std::cos(2 * 3.14159265358979323846 * angle);
      const double worth = 100 * std::exp(0.03 + 0.2 * normal) - 100;
      ExpectNear(paid[i], std::fmax(0.0, worth), 1e-12, 1e-12, "payoff", i);
    }
    const auto got = Download(hits, 1);  // of all iterations so far
    EXPECT(got[0] == want);
    const double pi = 4.0 * got[0] / (2.0 * kRounds * n * (it + 1));
    EXPECT(std::fabs(pi - 3.14159) < 0.1);
    digest.AddValue(got[0]);
    AddAll(digest, paid);
    Progress(it, iterations);
  }
  return digest.Pass();
}
