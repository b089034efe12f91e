// LU factorization with partial pivoting of double matrices, a step of kernels
// per column; the same operations on the processor give the same bits. Then
// the system is solved and the residual looked at.
#include <algorithm>

#include "arrays.h"

constexpr int kN = 48;

__global__ void FindPivot(const double* a, int k, int* pivot) {
  __shared__ double best[64];
  __shared__ int where[64];
  const int t = threadIdx.x;
  best[t] = -1;
  where[t] = k;
  for (int row = k + t; row < kN; row += 64) {
    const double size = fabs(a[row * kN + k]);
    if (size > best[t]) {
      best[t] = size;
      where[t] = row;
    }
  }
  for (int d = 32; d > 0; d /= 2) {
    __syncthreads();
    if (t < d && (best[t + d] > best[t] ||
                  (best[t + d] == best[t] && where[t + d] < where[t]))) {
      best[t] = best[t + d];
      where[t] = where[t + d];
    }
  }
  if (t == 0) pivot[k] = where[0];
}

__global__ void SwapRows(double* a, int k, const int* pivot) {
  const int column = threadIdx.x, other = pivot[k];
  const double x = a[k * kN + column];
  a[k * kN + column] = a[other * kN + column];
  a[other * kN + column] = x;
}

__global__ void Divide(double* a, int k) {
  const int row = k + 1 + threadIdx.x;
  if (row < kN) a[row * kN + k] /= a[k * kN + k];
}

__global__ void Update(double* a, int k) {
  const int row = k + 1 + blockIdx.x, column = threadIdx.x;
  if (column > k) {
    a[row * kN + column] = fma(-a[row * kN + k], a[k * kN + column],
                               a[row * kN + column]);
  }
}

void Reference(std::vector<double>& a, std::vector<int>& pivot) {
  for (int k = 0; k < kN; ++k) {
    int p = k;
    for (int row = k; row < kN; ++row) {
      if (std::fabs(a[row * kN + k]) > std::fabs(a[p * kN + k])) p = row;
    }
    pivot[k] = p;
    std::swap_ranges(&a[k * kN], &a[k * kN] + kN, &a[p * kN]);
    for (int row = k + 1; row < kN; ++row) {
      a[row * kN + k] /= a[k * kN + k];
      for (int c = k + 1; c < kN; ++c) {
        a[row * kN + c] =
            std::fma(-a[row * kN + k], a[k * kN + c], a[row * kN + c]);
      }
    }
  }
}

double Residual(const std::vector<double>& a, const std::vector<double>& lu,
                const std::vector<int>& pivot) {
  std::vector<double> b(kN, 1.0), x = b;
  for (int k = 0; k < kN; ++k) std::swap(x[k], x[pivot[k]]);
  for (int i = 0; i < kN; ++i) {
    for (int j = 0; j < i; ++j) x[i] -= lu[i * kN + j] * x[j];
  }
  for (int i = kN - 1; i >= 0; --i) {
    for (int j = i + 1; j < kN; ++j) x[i] -= lu[i * kN + j] * x[j];
    x[i] /= lu[i * kN + i];
  }
  double worst = 0;
  for (int i = 0; i < kN; ++i) {
    double sum = -b[i];
    for (int j = 0; j < kN; ++j) sum += a[i * kN + j] * x[j];
    worst = std::max(worst, std::fabs(sum));
  }
  return worst;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  double* da = Allocate<double>(kN * kN);
  int* dp = Allocate<int>(kN);
  Digest digest;
  Random random(53);
  for (int it = 0; it < iterations; ++it) {
    std::vector<double> a(kN * kN);
    for (double& x : a) x = Uniform(random) - 0.5;
    Upload(da, a);
    for (int k = 0; k < kN; ++k) {
      FindPivot<<<1, 64>>>(da, k, dp);
      SwapRows<<<1, kN>>>(da, k, dp);
      if (k + 1 < kN) {
        Divide<<<1, kN>>>(da, k);
        Update<<<kN - k - 1, kN>>>(da, k);
      }
    }
    std::vector<double> want = a;
    std::vector<int> pivot(kN);
    Reference(want, pivot);
    const auto got = Download(da, kN * kN);
    ExpectSame(Download(dp, kN), pivot, "pivot");
    ExpectSame(got, want, "factors");
    EXPECT(Residual(a, got, pivot) < 1e-10);
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
