// Sparse matrix times vector in compressed rows: a thread per row, and a warp
// per row. Values are small integers, so every order of addition is exact.
#include "arrays.h"

__global__ void RowPerThread(const int* rows, const int* columns,
                             const float* values, const float* x, float* y,
                             int n) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= n) return;
  float sum = 0;
  for (int k = rows[row]; k < rows[row + 1]; ++k) {
    sum += values[k] * x[columns[k]];
  }
  y[row] = sum;
}

__global__ void RowPerWarp(const int* rows, const int* columns,
                           const float* values, const float* x, float* y,
                           int n) {
  const int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (row >= n) return;
  float sum = 0;
  for (int k = rows[row] + lane; k < rows[row + 1]; k += 32) {
    sum += values[k] * __ldg(&x[columns[k]]);
  }
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  if (lane == 0) y[row] = sum;
}

// Keeps the numbers small from iteration to iteration.
__global__ void Fold(float* x, const float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = static_cast<float>(static_cast<int>(y[i]) % 64);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 700;
  Random random(41);
  std::vector<int> rows{0}, columns;
  std::vector<float> values;
  for (int row = 0; row < n; ++row) {
    const int entries = row % 50 == 0 ? 200 : random.Next() % 12;
    for (int k = 0; k < entries; ++k) {
      columns.push_back(random.Next() % n);
      values.push_back(static_cast<float>(random.Next() % 9) - 4);
    }
    rows.push_back(static_cast<int>(columns.size()));
  }
  std::vector<float> x(n), y(n);
  for (float& v : x) v = static_cast<float>(random.Next() % 64);
  const int* dr = Upload(rows);
  const int* dc = Upload(columns);
  const float* dv = Upload(values);
  float* dx = Upload(x);
  float* dy = Allocate<float>(n);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    if (it % 2) {
      RowPerThread<<<(n + 127) / 128, 128>>>(dr, dc, dv, dx, dy, n);
    } else {
      RowPerWarp<<<(n * 32 + 127) / 128, 128>>>(dr, dc, dv, dx, dy, n);
    }
    const auto got = Download(dy, n);
    for (int row = 0; row < n; ++row) {
      y[row] = 0;
      for (int k = rows[row]; k < rows[row + 1]; ++k) {
        y[row] += values[k] * x[columns[k]];
      }
    }
    ExpectSame(got, y, "product");
    Fold<<<(n + 127) / 128, 128>>>(dx, dy, n);
    for (int i = 0; i < n; ++i) {
      x[i] = static_cast<float>(static_cast<int>(y[i]) % 64);
    }
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
