// Matrix products on tensor cores through nvcuda::wmma: f16, bf16, tf32 and
// bytes, accumulated in f32 and s32. Small integers, so every order is exact.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

#include "arrays.h"

namespace wmma = nvcuda::wmma;

constexpr int kN = 48;  // a square of 3 x 3 tiles

// What wmma calls a type that memory holds as another.
template <typename T>
struct Fragment {
  using Type = T;
};
template <>
struct Fragment<float> {
  using Type = wmma::precision::tf32;
};

// A warp computes a tile of 16 x 16; b is by columns when `kColumns`.
template <typename T, typename Sum, int kDepth, bool kColumns>
__global__ void Multiply(const T* a, const T* b, Sum* c, Sum scale) {
  using Layout = std::conditional_t<kColumns, wmma::col_major, wmma::row_major>;
  using F = typename Fragment<T>::Type;
  const int row = blockIdx.y * 16, column = blockIdx.x * 16;
  wmma::fragment<wmma::matrix_a, 16, 16, kDepth, F, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, 16, 16, kDepth, F, Layout> fb;
  wmma::fragment<wmma::accumulator, 16, 16, kDepth, Sum> fc;
  wmma::fill_fragment(fc, static_cast<Sum>(0));
  for (int k = 0; k < kN; k += kDepth) {
    wmma::load_matrix_sync(fa, a + row * kN + k, kN);
    wmma::load_matrix_sync(fb, kColumns ? b + column * kN + k
                                        : b + k * kN + column, kN);
    if constexpr (std::is_same_v<T, float>) {
      for (auto& x : fa.x) x = wmma::__float_to_tf32(x);
      for (auto& x : fb.x) x = wmma::__float_to_tf32(x);
    }
    wmma::mma_sync(fc, fa, fb, fc);
  }
  for (auto& x : fc.x) x *= scale;
  wmma::store_matrix_sync(c + row * kN + column, fc, kN, wmma::mem_row_major);
}

float ToFloat(float x) { return x; }
float ToFloat(__half x) { return __half2float(x); }
float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
float ToFloat(signed char x) { return x; }
float ToFloat(unsigned char x) { return x; }
void Set(float& to, int x) { to = static_cast<float>(x); }
void Set(__half& to, int x) { to = __float2half(static_cast<float>(x)); }
void Set(__nv_bfloat16& to, int x) {
  to = __float2bfloat16(static_cast<float>(x));
}
void Set(signed char& to, int x) { to = static_cast<signed char>(x); }
void Set(unsigned char& to, int x) { to = static_cast<unsigned char>(x & 15); }

template <typename T, typename Sum, int kDepth, bool kColumns>
void Try(Random& random, Digest& digest) {
  static T* da = Allocate<T>(kN * kN);
  static T* db = Allocate<T>(kN * kN);
  static Sum* dc = Allocate<Sum>(kN * kN);
  std::vector<T> a(kN * kN), b(kN * kN);
  for (T& x : a) Set(x, static_cast<int>(random.Next() % 15) - 7);
  for (T& x : b) Set(x, static_cast<int>(random.Next() % 15) - 7);
  Upload(da, a);
  Upload(db, b);
  Multiply<T, Sum, kDepth, kColumns>
      <<<dim3(kN / 16, kN / 16), 32>>>(da, db, dc, static_cast<Sum>(2));
  const auto got = Download(dc, kN * kN);
  for (int i = 0; i < kN * kN; ++i) {
    float want = 0;
    for (int k = 0; k < kN; ++k) {
      want += ToFloat(a[i / kN * kN + k]) *
              ToFloat(kColumns ? b[i % kN * kN + k] : b[k * kN + i % kN]);
    }
    EXPECT(static_cast<float>(got[i]) == 2 * want);
  }
  AddAll(digest, got);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  Digest digest;
  Random random(131);
  for (int it = 0; it < iterations; ++it) {
    Try<__half, float, 16, false>(random, digest);
    Try<__half, float, 16, true>(random, digest);
    Try<__nv_bfloat16, float, 16, true>(random, digest);
    Try<float, float, 8, false>(random, digest);
    Try<signed char, int, 16, true>(random, digest);
    Try<unsigned char, int, 16, false>(random, digest);
    Progress(it, iterations);
  }
  return digest.Pass();
}
