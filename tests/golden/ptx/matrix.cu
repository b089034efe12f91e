// Matrix products as programs have them: with nvcuda::wmma, and with mma.sync
// and ldmatrix. D = A B + C; A is row after row, B column after column.
//
// golden: sm_90
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

#include <cstdint>

using namespace nvcuda;

// One warp for each tile, straight from global memory. C and D have N columns.
template <typename In, typename Sum, int M, int N, int K>
__device__ void Tiles(const In* a, const In* b, Sum* d, int n, int k) {
  const int row = blockIdx.y * M;
  const int column = blockIdx.x * N;
  wmma::fragment<wmma::matrix_a, M, N, K, In, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, M, N, K, In, wmma::col_major> fb;
  wmma::fragment<wmma::accumulator, M, N, K, Sum> sum;
  wmma::load_matrix_sync(sum, d + row * n + column, n, wmma::mem_row_major);
  for (int at = 0; at < k; at += K) {
    wmma::load_matrix_sync(fa, a + row * k + at, k);
    wmma::load_matrix_sync(fb, b + column * k + at, k);
    wmma::mma_sync(sum, fa, fb, sum);
  }
  wmma::store_matrix_sync(d + row * n + column, sum, n, wmma::mem_row_major);
}

#define TILES(name, in, sum, m, n, k)                                     \
  extern "C" __global__ void name(const in* a, const in* b, sum* d,       \
                                  int columns, int depth) {               \
    Tiles<in, sum, m, n, k>(a, b, d, columns, depth);                     \
  }
TILES(tiles_half_float, half, float, 16, 16, 16)
TILES(tiles_half_float_wide, half, float, 8, 32, 16)
TILES(tiles_half_float_tall, half, float, 32, 8, 16)
TILES(tiles_half_half, half, half, 16, 16, 16)
TILES(tiles_bfloat, __nv_bfloat16, float, 16, 16, 16)
TILES(tiles_s8, signed char, int, 16, 16, 16)
TILES(tiles_u8, unsigned char, int, 32, 8, 16)
TILES(tiles_double, double, double, 8, 8, 4)

// 64 x 64 tiles of four warps through shared memory; each element of the sum
// is scaled in its fragment.
extern "C" __global__ void gemm_wmma(const half* a, const half* b, float* d,
                                     int n, int k, float scale) {
  constexpr int kTile = 64, kDepth = 32, kPitch = kDepth + 8;
  __shared__ __align__(32) half as[kTile * kPitch];
  __shared__ __align__(32) half bs[kTile * kPitch];
  const int warp = threadIdx.x / 32;
  const int row = blockIdx.y * kTile, column = blockIdx.x * kTile;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum[4];
  for (auto& s : sum) wmma::fill_fragment(s, 0.0f);
  for (int at = 0; at < k; at += kDepth) {
    __syncthreads();
    for (int e = threadIdx.x; e < kTile * kDepth; e += blockDim.x) {
      const int r = e / kDepth, c = e % kDepth;
      as[r * kPitch + c] = a[(row + r) * k + at + c];
      bs[r * kPitch + c] = b[(column + r) * k + at + c];
    }
    __syncthreads();
    for (int step = 0; step < kDepth; step += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> fa;
      wmma::load_matrix_sync(fa, as + warp * 16 * kPitch + step, kPitch);
      for (int j = 0; j < 4; ++j) {
        wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> fb;
        wmma::load_matrix_sync(fb, bs + j * 16 * kPitch + step, kPitch);
        wmma::mma_sync(sum[j], fa, fb, sum[j]);
      }
    }
  }
  for (int j = 0; j < 4; ++j) {
    for (int e = 0; e < sum[j].num_elements; ++e) sum[j].x[e] *= scale;
    wmma::store_matrix_sync(d + (row + warp * 16) * n + column + j * 16, sum[j],
                            n, wmma::mem_row_major);
  }
}

__device__ void Ldmatrix4(uint32_t* r, const void* at) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(at));
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
      : "r"(address));
}
__device__ void Ldmatrix2Turned(uint32_t* r, const void* at) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(at));
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
      : "=r"(r[0]), "=r"(r[1])
      : "r"(address));
}

// 16 x 8 tiles of one warp; here B is row after row, [k][n], and comes turned.
template <typename In>
__device__ void GemmMma(const In* a, const In* b, float* d, int n, int k) {
  __shared__ __align__(16) In as[16 * 16];
  __shared__ __align__(16) In bs[16 * 8];
  const int lane = threadIdx.x;
  const int row = blockIdx.y * 16, column = blockIdx.x * 8;
  float c[4] = {};
  for (int at = 0; at < k; at += 16) {
    __syncwarp();
    for (int e = lane; e < 256; e += 32) {
      as[e] = a[(row + e / 16) * k + at + e % 16];
    }
    for (int e = lane; e < 128; e += 32) {
      bs[e] = b[(at + e / 8) * n + column + e % 8];
    }
    __syncwarp();
    uint32_t fa[4], fb[2];
    Ldmatrix4(fa, as + lane % 16 * 16 + lane / 16 * 8);
    Ldmatrix2Turned(fb, bs + lane % 16 * 8);
    if constexpr (sizeof(In) == 2 && !__is_same(In, half)) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]),
            "r"(fb[1]));
    } else {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]),
            "r"(fb[1]));
    }
  }
  for (int e = 0; e < 4; ++e) {
    const int r = row + lane / 4 + e / 2 * 8;
    d[r * n + column + lane % 4 * 2 + e % 2] = c[e];
  }
}

extern "C" __global__ void gemm_mma_half(const half* a, const half* b, float* d,
                                         int n, int k) {
  GemmMma(a, b, d, n, k);
}
extern "C" __global__ void gemm_mma_bfloat(const __nv_bfloat16* a,
                                           const __nv_bfloat16* b, float* d,
                                           int n, int k) {
  GemmMma(a, b, d, n, k);
}

// f32 inputs, cut to tf32 by the instruction; one warp, 16 x 16.
extern "C" __global__ void tile_tf32(const float* a, const float* b, float* d,
                                     int k) {
  wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32,
                 wmma::row_major>
      fa;
  wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32,
                 wmma::col_major>
      fb;
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> sum;
  wmma::fill_fragment(sum, 0.0f);
  for (int at = 0; at < k; at += 8) {
    wmma::load_matrix_sync(fa, a + at, k);
    wmma::load_matrix_sync(fb, b + at, k);
    wmma::mma_sync(sum, fa, fb, sum);
  }
  wmma::store_matrix_sync(d, sum, 16, wmma::mem_row_major);
}
