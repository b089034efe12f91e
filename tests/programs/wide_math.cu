// Integers of 128 and 64 bits exactly, and the functions of double and float
// against the processor's within some last bits.
#include "arrays.h"

using Wide = unsigned __int128;

struct Wides {
  Wide product, quotient, rest, shifted;
  unsigned long long high, power, isqrt;
  long long divided;
  int zeros, ones;
};

__host__ __device__ unsigned long long PowerMod(unsigned long long base,
                                                unsigned long long exponent,
                                                unsigned long long modulus) {
  unsigned long long result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) {
      result = static_cast<unsigned long long>(
          static_cast<Wide>(result) * base % modulus);
    }
    base =
        static_cast<unsigned long long>(static_cast<Wide>(base) * base % modulus);
  }
  return result;
}

__host__ __device__ Wides Integers(unsigned long long a,
                                   unsigned long long b) {
  Wides w = {};
  const Wide x = (static_cast<Wide>(a) << 64 | b) >> (b % 40);
  const Wide y = static_cast<Wide>(b | 1) * (a % 1000 + 1);
  w.product = x * y;
  w.quotient = x / y;
  w.rest = x % y;
  w.shifted = (x << (a % 128)) ^ (x >> (b % 128));
  w.power = PowerMod(a, b % 64, 0xffffffffffffffc5ull);
  w.divided = static_cast<long long>(a) / static_cast<int>(b | 1);
#ifdef __CUDA_ARCH__
  w.high = __umul64hi(a, b);
  w.zeros = __clzll(a);
  w.ones = __popcll(b);
#else
  w.high = static_cast<unsigned long long>(static_cast<Wide>(a) * b >> 64);
  w.zeros = a == 0 ? 64 : __builtin_clzll(a);
  w.ones = __builtin_popcountll(b);
#endif
  for (unsigned long long bit = 1ull << 31; bit != 0; bit >>= 1) {
    const unsigned long long tried = w.isqrt | bit;
    if (tried * tried <= a) w.isqrt = tried;
  }
  return w;
}

constexpr int kFunctions = 30;

template <typename T>
__host__ __device__ void Functions(T x, T y, T* f) {
  const T positive = fabs(x) + static_cast<T>(0.01);
  const T unit = x / (fabs(x) + 1);
  f[0] = sin(x);
  f[1] = cos(x);
  f[2] = tan(unit);
  f[3] = asin(unit);
  f[4] = acos(unit);
  f[5] = atan(x);
  f[6] = atan2(y, x);
  f[7] = sinh(x);
  f[8] = cosh(x);
  f[9] = tanh(x);
  f[10] = asinh(x);
  f[11] = acosh(positive + 1);
  f[12] = atanh(unit);
  f[13] = exp(x);
  f[14] = exp2(x);
  f[15] = expm1(x);
  f[16] = log(positive);
  f[17] = log2(positive + 1);
  f[18] = log10(positive + 1);
  f[19] = log1p(positive);
  f[20] = pow(positive, y);
  f[21] = sqrt(positive);
  f[22] = cbrt(x);
  f[23] = hypot(x, y);
  f[24] = erf(x);
  f[25] = erfc(x);
  f[26] = tgamma(positive);
  f[27] = lgamma(positive + 3);
  f[28] = fmod(x, y);
  f[29] = j0(positive);
}

__global__ void Run(const unsigned long long* in, Wides* wide, double* d,
                    float* f, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned long long a = in[2 * i], b = in[2 * i + 1];
  wide[i] = Integers(a, b);
  const double x = static_cast<long long>(a) / 1.0e18;
  const double y = static_cast<long long>(b | 1) / 2.0e18;
  Functions(x, y, d + i * kFunctions);
  Functions(static_cast<float>(x), static_cast<float>(y), f + i * kFunctions);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 2);
  const int n = 64;
  auto* in = Allocate<unsigned long long>(2 * n);
  Wides* wide = Allocate<Wides>(n);
  double* d = Allocate<double>(n * kFunctions);
  float* f = Allocate<float>(n * kFunctions);
  CUDA(cudaMemset(wide, 0, n * sizeof(Wides)));
  Digest digest;
  Random random(97);
  for (int it = 0; it < iterations; ++it) {
    std::vector<unsigned long long> host(2 * n);
    for (auto& x : host) {
      x = static_cast<unsigned long long>(random.Next()) << 33 ^
          static_cast<unsigned long long>(random.Next()) << 11 ^ random.Next();
    }
    Upload(in, host);
    Run<<<2, n / 2>>>(in, wide, d, f, n);
    const auto got = Download(wide, n);
    const auto got_d = Download(d, n * kFunctions);
    const auto got_f = Download(f, n * kFunctions);
    for (int i = 0; i < n; ++i) {
      const unsigned long long a = host[2 * i], b = host[2 * i + 1];
      const Wides want = Integers(a, b);
      EXPECT(got[i].product == want.product);
      EXPECT(got[i].quotient == want.quotient && got[i].rest == want.rest);
      EXPECT(got[i].shifted == want.shifted && got[i].high == want.high);
      EXPECT(got[i].power == want.power && got[i].isqrt == want.isqrt);
      EXPECT(got[i].divided == want.divided);
      EXPECT(got[i].zeros == want.zeros && got[i].ones == want.ones);
      const double x = static_cast<long long>(a) / 1.0e18;
      const double y = static_cast<long long>(b | 1) / 2.0e18;
      double want_d[kFunctions];
      double want_f[kFunctions];  // of the same floats, computed in double
      Functions(x, y, want_d);
      Functions<double>(static_cast<float>(x), static_cast<float>(y), want_f);
      for (int k = 0; k < kFunctions; ++k) {
        const int at = i * kFunctions + k;
        ExpectNear(got_d[at], want_d[k], 1e-13, 1e-14, "double", k);
        ExpectNear(got_f[at], want_f[k], 1e-4, 1e-5, "float", k);
      }
      digest.AddValue(want.product);
    }
    AddAll(digest, got_d);
    AddAll(digest, got_f);
    Progress(it, iterations);
  }
  return digest.Pass();
}
