// Arithmetic of f16 and bf16, alone and in pairs. Sums, products and fused ones
// are exact in double and rounded once there and here, so bits agree;
// exponentials and the like are near.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "arrays.h"

constexpr int kResults = 16, kNear = 6;

template <typename T>
struct Names;
template <>
struct Names<__half> {
  using Pair = __half2;
  __host__ __device__ static __half From(float x) { return __float2half_rn(x); }
  __host__ __device__ static float To(__half x) { return __half2float(x); }
  __device__ static __half2 Both(__half a, __half b) {
    return __halves2half2(a, b);
  }
  __device__ static __half Low(__half2 x) { return __low2half(x); }
  __device__ static __half High(__half2 x) { return __high2half(x); }
};
template <>
struct Names<__nv_bfloat16> {
  using Pair = __nv_bfloat162;
  __host__ __device__ static __nv_bfloat16 From(float x) {
    return __float2bfloat16_rn(x);
  }
  __host__ __device__ static float To(__nv_bfloat16 x) {
    return __bfloat162float(x);
  }
  __device__ static __nv_bfloat162 Both(__nv_bfloat16 a, __nv_bfloat16 b) {
    return __halves2bfloat162(a, b);
  }
  __device__ static __nv_bfloat16 Low(__nv_bfloat162 x) {
    return __low2bfloat16(x);
  }
  __device__ static __nv_bfloat16 High(__nv_bfloat162 x) {
    return __high2bfloat16(x);
  }
};

template <typename T>
__global__ void Run(const T* in, T* out, float* near, int n) {
  using N = Names<T>;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const T a = in[3 * i], b = in[3 * i + 1], c = in[3 * i + 2];
  T* o = out + i * kResults;
  o[0] = __hadd(a, b);
  o[1] = __hsub(a, b);
  o[2] = __hmul(a, b);
  o[3] = __hfma(a, b, c);
  o[4] = __hneg(a);
  o[5] = __habs(b);
  o[6] = __hmax(a, b);
  o[7] = __hmin(a, c);
  const auto x = N::Both(a, b), y = N::Both(c, a);
  const auto sum = __hadd2(x, y);
  const auto product = __hmul2(x, y);
  const auto fused = __hfma2(x, y, N::Both(b, c));
  o[8] = N::Low(sum);
  o[9] = N::High(sum);
  o[10] = N::Low(product);
  o[11] = N::High(product);
  o[12] = N::Low(fused);
  o[13] = N::High(fused);
  o[14] = __hlt(a, b) ? a : c;
  o[15] = __hge(a, c) ? N::From(1.0f) : b;
  float* f = near + i * kNear;
  f[0] = N::To(hexp(a));
  f[1] = N::To(hlog(__hadd(__habs(a), N::From(0.5f))));
  f[2] = N::To(hsqrt(__habs(b)));
  f[3] = N::To(hrcp(__hadd(__habs(c), N::From(0.5f))));
  f[4] = N::To(__hdiv(a, __hadd(__habs(b), N::From(1.0f))));
  f[5] = N::To(hsin(a));
}

template <typename T>
double Value(T x) {
  return Names<T>::To(x);
}

// `exact` rounded to T, to nearest even. Twice: to float with the sticky bit in
// its last place (so that the second rounding cannot err), then to T.
template <typename T>
T Rounded(double exact) {
  float cut = static_cast<float>(exact);
  if (static_cast<double>(cut) != exact && std::isfinite(exact)) {
    unsigned bits;
    if (std::fabs(static_cast<double>(cut)) > std::fabs(exact)) {
      cut = std::nextafterf(cut, 0.0f);
    }
    std::memcpy(&bits, &cut, 4);
    bits |= 1;
    std::memcpy(&cut, &bits, 4);
  }
  return Names<T>::From(cut);
}

template <typename T>
void Check(const std::vector<T>& host, const T* in, T* out, float* near,
           double tolerance, Digest& digest) {
  const int n = static_cast<int>(host.size() / 3);
  CUDA(cudaMemcpy(const_cast<T*>(in), host.data(), host.size() * sizeof(T),
                  cudaMemcpyHostToDevice));
  Run<T><<<(n + 63) / 64, 64>>>(in, out, near, n);
  const auto got = Download(out, n * kResults);
  const auto got_near = Download(near, n * kNear);
  for (int i = 0; i < n; ++i) {
    const T at = host[3 * i], bt = host[3 * i + 1], ct = host[3 * i + 2];
    const double a = Value(at), b = Value(bt), c = Value(ct);
    const T want[kResults] = {
        Rounded<T>(a + b), Rounded<T>(a - b), Rounded<T>(a * b),
        Rounded<T>(a * b + c), Rounded<T>(-a), Rounded<T>(std::fabs(b)),
        a > b ? at : bt, a < c ? at : ct, Rounded<T>(a + c),
        Rounded<T>(b + a), Rounded<T>(a * c), Rounded<T>(b * a),
        Rounded<T>(a * c + b), Rounded<T>(b * a + c), a < b ? at : ct,
        a >= c ? Names<T>::From(1.0f) : bt};
    for (int k = 0; k < kResults; ++k) {
      if (std::memcmp(&got[i * kResults + k], &want[k], sizeof(T)) != 0) {
        FAIL("result %d of %g %g %g: %g, want %g", k, a, b, c,
             Value(got[i * kResults + k]), Value(want[k]));
      }
    }
    const double half = Value(Rounded<T>(std::fabs(a) + 0.5));
    const double near_want[kNear] = {
        std::exp(a), std::log(half), std::sqrt(std::fabs(b)),
        1 / Value(Rounded<T>(std::fabs(c) + 0.5)),
        a / Value(Rounded<T>(std::fabs(b) + 1)), std::sin(a)};
    for (int k = 0; k < kNear; ++k) {
      ExpectNear(got_near[i * kNear + k], near_want[k], tolerance, tolerance,
                 "near", k);
    }
  }
  AddAll(digest, got);
  AddAll(digest, got_near);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 200;
  __half* in_h = Allocate<__half>(3 * n);
  __half* out_h = Allocate<__half>(kResults * n);
  auto* in_b = Allocate<__nv_bfloat16>(3 * n);
  auto* out_b = Allocate<__nv_bfloat16>(kResults * n);
  float* near = Allocate<float>(kNear * n);
  Digest digest;
  Random random(113);
  for (int it = 0; it < iterations; ++it) {
    std::vector<__half> halves(3 * n);
    std::vector<__nv_bfloat16> brains(3 * n);
    for (int i = 0; i < 3 * n; ++i) {
      float x = (Uniform(random) - 0.5f) * 8;
      if (random.Next() % 4 == 0) x /= 4096;
      if (x == 0) x = 1;
      halves[i] = __float2half_rn(x);
      brains[i] = __float2bfloat16_rn(x);
    }
    Check(halves, in_h, out_h, near, 2e-3, digest);
    Check(brains, in_b, out_b, near, 2e-2, digest);
    Progress(it, iterations);
  }
  return digest.Pass();
}
