// SHA-256 (FIPS 180-4) of many messages at once, and a search for a hash with
// leading zeros; the same code on the processor, checked by the standard's
// example.
#include "arrays.h"

#define K_TABLE                                                               \
  {                                                                           \
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1,   \
    0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,   \
    0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,   \
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,   \
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,   \
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,   \
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,   \
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,   \
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,   \
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,   \
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2                            \
  }
__constant__ unsigned device_k[64] = K_TABLE;

struct Hash {
  unsigned v[8];
};

__host__ __device__ unsigned Rotr(unsigned x, int n) {
  return x >> n | x << (32 - n);
}

// The hash of a message of at most 13 words, given with its length in words.
__host__ __device__ Hash Sha256(const unsigned* message, int words) {
#ifdef __CUDA_ARCH__
  const unsigned* k = device_k;
#else
  static const unsigned k[64] = K_TABLE;
#endif
  const Hash start = {{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
  unsigned w[64];
  for (int i = 0; i < 16; ++i) w[i] = i < words ? message[i] : 0;
  w[words] = 0x80000000u;
  w[15] = words * 32;
  for (int i = 16; i < 64; ++i) {
    const unsigned s0 =
        Rotr(w[i - 15], 7) ^ Rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
    const unsigned s1 =
        Rotr(w[i - 2], 17) ^ Rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  Hash h = start;
  for (int i = 0; i < 64; ++i) {
    const unsigned a = h.v[0], e = h.v[4];
    const unsigned t1 = h.v[7] + (Rotr(e, 6) ^ Rotr(e, 11) ^ Rotr(e, 25)) +
                        ((e & h.v[5]) ^ (~e & h.v[6])) + k[i] + w[i];
    const unsigned t2 = (Rotr(a, 2) ^ Rotr(a, 13) ^ Rotr(a, 22)) +
                        ((a & h.v[1]) ^ (a & h.v[2]) ^ (h.v[1] & h.v[2]));
    for (int j = 7; j > 0; --j) h.v[j] = h.v[j - 1];
    h.v[4] += t1;
    h.v[0] = t1 + t2;
  }
  for (int j = 0; j < 8; ++j) h.v[j] += start.v[j];
  return h;
}

__global__ void HashAll(const unsigned* chain, Hash* out) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned message[9] = {i};
  for (int k = 0; k < 8; ++k) message[k + 1] = chain[k];
  out[i] = Sha256(message, 9);
}

// The smallest number whose hash begins with `bits` zeros.
__global__ void Search(const unsigned* chain, int bits, unsigned* best) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned message[9] = {i};
  for (int k = 0; k < 8; ++k) message[k + 1] = chain[k];
  if (Sha256(message, 9).v[0] >> (32 - bits) == 0) atomicMin(best, i);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const unsigned n = 512, bits = 7;
  unsigned abc[1] = {0x61626364};  // "abcd"
  EXPECT(Sha256(abc, 1).v[0] == 0x88d4266f);
  EXPECT(Sha256(abc, 0).v[0] == 0xe3b0c442);  // of nothing
  std::vector<unsigned> chain(8, 1);
  unsigned* device_chain = Upload(chain);
  unsigned* best = Allocate<unsigned>(1);
  Hash* out = Allocate<Hash>(n);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    HashAll<<<n / 128, 128>>>(device_chain, out);
    CUDA(cudaMemset(best, 0xff, sizeof(unsigned)));
    Search<<<n / 128, 128>>>(device_chain, bits, best);
    const auto got = Download(out, n);
    unsigned want_best = ~0u;
    for (unsigned i = 0; i < n; ++i) {
      unsigned message[9] = {i};
      for (int k = 0; k < 8; ++k) message[k + 1] = chain[k];
      const Hash want = Sha256(message, 9);
      EXPECT(std::memcmp(&got[i], &want, sizeof(want)) == 0);
      if (want.v[0] >> (32 - bits) == 0 && want_best == ~0u) want_best = i;
    }
    const unsigned found = Download(best, 1)[0];
    EXPECT(found == want_best);
    // The next messages go on from a hash of these.
    const unsigned link = found < n ? found : 0;
    CUDA(cudaMemcpy(device_chain, out + link, sizeof(Hash),
                    cudaMemcpyDeviceToDevice));
    chain.assign(got[link].v, got[link].v + 8);
    AddAll(digest, chain);
    Progress(it, iterations);
  }
  return digest.Pass();
}
