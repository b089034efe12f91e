// Tiled matrix product in shared memory, static and dynamic (opt-in size).
#include <vector>

#include "check.h"

constexpr int kTile = 16;

__global__ void Multiply(const float* a, const float* b, float* c, int n) {
  __shared__ float ta[kTile][kTile];
  __shared__ float tb[kTile][kTile];
  const int row = blockIdx.y * kTile + threadIdx.y;
  const int col = blockIdx.x * kTile + threadIdx.x;
  float sum = 0;
  for (int t = 0; t < n; t += kTile) {
    ta[threadIdx.y][threadIdx.x] = a[row * n + t + threadIdx.x];
    tb[threadIdx.y][threadIdx.x] = b[(t + threadIdx.y) * n + col];
    __syncthreads();
    for (int k = 0; k < kTile; ++k) {
      sum += ta[threadIdx.y][k] * tb[k][threadIdx.x];
    }
    __syncthreads();
  }
  c[row * n + col] = sum;
}

// Adds up columns through a dynamic buffer larger than 48 KiB.
__global__ void ColumnSums(const float* c, float* sums, int n) {
  extern __shared__ float buffer[];
  for (int row = 0; row < n; ++row) {
    buffer[row * n + threadIdx.x] = c[row * n + threadIdx.x];
  }
  __syncthreads();
  float sum = 0;
  for (int row = 0; row < n; ++row) sum += buffer[row * n + threadIdx.x];
  sums[threadIdx.x] = sum;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 2);
  const int n = 112;  // 112 * 112 floats: 49 KiB
  const size_t bytes = n * n * sizeof(float);
  std::vector<float> a(n * n), b(n * n), c(n * n), sums(n);
  float *da, *db, *dc, *ds;
  CUDA(cudaMalloc(&da, bytes));
  CUDA(cudaMalloc(&db, bytes));
  CUDA(cudaMalloc(&dc, bytes));
  CUDA(cudaMalloc(&ds, n * sizeof(float)));
  ColumnSums<<<1, n, bytes>>>(dc, ds, n);
  EXPECT(cudaGetLastError() == cudaErrorInvalidValue);  // not opted in
  CUDA(cudaFuncSetAttribute(ColumnSums,
                            cudaFuncAttributeMaxDynamicSharedMemorySize,
                            static_cast<int>(bytes)));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Random random(100 + it);
    // Small integers, so that every order of addition is exact.
    for (float& x : a) x = static_cast<float>(random.Next() % 17) - 8;
    for (float& x : b) x = static_cast<float>(random.Next() % 17) - 8;
    CUDA(cudaMemcpy(da, a.data(), bytes, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(db, b.data(), bytes, cudaMemcpyHostToDevice));
    Multiply<<<dim3(n / kTile, n / kTile), dim3(kTile, kTile)>>>(da, db, dc, n);
    ColumnSums<<<1, n, bytes>>>(dc, ds, n);
    CUDA(cudaGetLastError());
    CUDA(cudaMemcpy(c.data(), dc, bytes, cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(sums.data(), ds, n * sizeof(float),
                    cudaMemcpyDeviceToHost));
    for (int col = 0; col < n; ++col) {
      float column = 0;
      for (int row = 0; row < n; ++row) {
        float want = 0;
        for (int k = 0; k < n; ++k) want += a[row * n + k] * b[k * n + col];
        EXPECT(c[row * n + col] == want);
        column += want;
      }
      EXPECT(sums[col] == column);
    }
    digest.Add(c.data(), bytes);
    digest.Add(sums.data(), n * sizeof(float));
    Progress(it, iterations);
  }
  return digest.Pass();
}
