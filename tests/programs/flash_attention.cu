// Attention in half precision without the matrix of weights: blocks of keys in
// shared memory, softmax computed as they come (Dao et al., "FlashAttention",
// 2022), causal, against the definition in double.
#include <cuda_fp16.h>

#include "arrays.h"

constexpr int kTime = 64, kHead = 16, kHeads = 2, kTile = 16, kPairs = kHead / 2;

__global__ void Attention(const __half2* q, const __half2* k, const __half2* v,
                          __half2* out) {
  __shared__ __half2 keys[kTile][kPairs], values[kTile][kPairs];
  const int head = blockIdx.y, row = blockIdx.x * kTile + threadIdx.x;
  const __half2* mine = q + (head * kTime + row) * kPairs;
  __half2 query[kPairs];
  for (int d = 0; d < kPairs; ++d) {
    query[d] = __hmul2(mine[d], __float2half2_rn(0.25f));  // 1 / sqrt(kHead)
  }
  float most = -INFINITY, sum = 0, result[kHead] = {};
  for (int base = 0; base <= static_cast<int>(blockIdx.x) * kTile;
       base += kTile) {
    for (int i = threadIdx.x; i < kTile * kPairs; i += kTile) {
      const int at = (head * kTime + base) * kPairs + i;
      keys[i / kPairs][i % kPairs] = k[at];
      values[i / kPairs][i % kPairs] = v[at];
    }
    __syncthreads();
    for (int u = 0; u < kTile && base + u <= row; ++u) {
      __half2 dots = __float2half2_rn(0.0f);
      for (int d = 0; d < kPairs; ++d) {
        dots = __hfma2(query[d], keys[u][d], dots);
      }
      const float score =
          __half2float(__hadd(__low2half(dots), __high2half(dots)));
      const float next = fmaxf(most, score);
      const float keep = __expf(most - next), weight = __expf(score - next);
      most = next;
      sum = sum * keep + weight;
      for (int d = 0; d < kPairs; ++d) {
        const float2 value = __half22float2(values[u][d]);
        result[2 * d] = result[2 * d] * keep + weight * value.x;
        result[2 * d + 1] = result[2 * d + 1] * keep + weight * value.y;
      }
    }
    __syncthreads();
  }
  for (int d = 0; d < kPairs; ++d) {
    out[(head * kTime + row) * kPairs + d] =
        __floats2half2_rn(result[2 * d] / sum, result[2 * d + 1] / sum);
  }
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = kHeads * kTime * kHead;
  __half* device[4];
  for (__half*& d : device) d = Allocate<__half>(n);
  const auto pairs = [&](int i) {
    return reinterpret_cast<__half2*>(device[i]);
  };
  Digest digest;
  Random random(127);
  for (int it = 0; it < iterations; ++it) {
    std::vector<__half> host[3];
    for (int i = 0; i < 3; ++i) {
      host[i].resize(n);
      for (__half& x : host[i]) x = __float2half_rn(Uniform(random) * 4 - 2);
      Upload(device[i], host[i]);
    }
    Attention<<<dim3(kTime / kTile, kHeads), kTile>>>(pairs(0), pairs(1),
                                                      pairs(2), pairs(3));
    const auto got = Download(device[3], n);
    for (int r = 0; r < kHeads * kTime; ++r) {
      const int base = r - r % kTime;
      double weights[kTime], sum = 0;
      for (int u = base; u <= r; ++u) {
        double dot = 0;
        for (int d = 0; d < kHead; ++d) {
          dot += static_cast<double>(__half2float(host[0][r * kHead + d])) *
                 __half2float(host[1][u * kHead + d]);
        }
        sum += weights[u - base] = std::exp(dot / 4);
      }
      for (int d = 0; d < kHead; ++d) {
        double want = 0;
        for (int u = base; u <= r; ++u) {
          want += weights[u - base] / sum *
                  __half2float(host[2][u * kHead + d]);
        }
        ExpectNear(__half2float(got[r * kHead + d]), want, 0.01, 0.02, "out",
                   r * kHead + d);
      }
    }
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
