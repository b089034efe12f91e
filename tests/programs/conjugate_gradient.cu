// Conjugate gradients in one cooperative kernel: grid-wide barriers between the
// steps, sums over all blocks in a fixed order.
#include <cooperative_groups.h>

#include "arrays.h"

namespace cg = cooperative_groups;

constexpr int kBlock = 64, kBlocks = 4, kSide = 24, kN = kSide * kSide;
constexpr int kSteps = 8;

// The five-point Laplacian on a square, plus a constant on the diagonal.
__host__ __device__ double Row(const double* x, int i) {
  double sum = 4.5 * x[i];
  if (i % kSide > 0) sum -= x[i - 1];
  if (i % kSide < kSide - 1) sum -= x[i + 1];
  if (i >= kSide) sum -= x[i - kSide];
  if (i < kN - kSide) sum -= x[i + kSide];
  return sum;
}

__device__ double SumAll(const cg::grid_group& grid, double mine,
                         double* parts) {
  __shared__ double shared[kBlock];
  shared[threadIdx.x] = mine;
  for (int d = kBlock / 2; d > 0; d /= 2) {
    __syncthreads();
    if (threadIdx.x < d) shared[threadIdx.x] += shared[threadIdx.x + d];
  }
  if (threadIdx.x == 0) parts[blockIdx.x] = shared[0];
  grid.sync();
  double sum = 0;
  for (int b = 0; b < kBlocks; ++b) sum += parts[b];
  grid.sync();  // the parts may be written again
  return sum;
}

__global__ void Solve(const double* b, double* x, double* r, double* p,
                      double* ap, double* parts) {
  const cg::grid_group grid = cg::this_grid();
  const int first = static_cast<int>(grid.thread_rank());
  const int stride = static_cast<int>(grid.size());
  double mine = 0;
  for (int i = first; i < kN; i += stride) {
    r[i] = b[i] - Row(x, i);
    p[i] = r[i];
    mine += r[i] * r[i];
  }
  double rr = SumAll(grid, mine, parts);
  for (int step = 0; step < kSteps; ++step) {
    mine = 0;
    for (int i = first; i < kN; i += stride) {
      ap[i] = Row(p, i);
      mine += p[i] * ap[i];
    }
    const double alpha = rr / SumAll(grid, mine, parts);
    mine = 0;
    for (int i = first; i < kN; i += stride) {
      x[i] += alpha * p[i];
      r[i] -= alpha * ap[i];
      mine += r[i] * r[i];
    }
    const double next = SumAll(grid, mine, parts);
    const double beta = next / rr;
    rr = next;
    for (int i = first; i < kN; i += stride) p[i] = r[i] + beta * p[i];
    grid.sync();
  }
}

std::vector<double> SolveOnHost(const std::vector<double>& b) {
  std::vector<double> x(kN), r = b, p = b, ap(kN);
  double rr = 0;
  for (double v : r) rr += v * v;
  for (int step = 0; step < kSteps; ++step) {
    double sum = 0, next = 0;
    for (int i = 0; i < kN; ++i) {
      ap[i] = Row(p.data(), i);
      sum += p[i] * ap[i];
    }
    const double alpha = rr / sum;
    for (int i = 0; i < kN; ++i) {
      x[i] += alpha * p[i];
      r[i] -= alpha * ap[i];
      next += r[i] * r[i];
    }
    for (int i = 0; i < kN; ++i) p[i] = r[i] + next / rr * p[i];
    rr = next;
  }
  return x;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  double* b = Allocate<double>(kN);
  double* x = Allocate<double>(kN);
  double* r = Allocate<double>(kN);
  double* p = Allocate<double>(kN);
  double* ap = Allocate<double>(kN);
  double* parts = Allocate<double>(kBlocks);
  Digest digest;
  Random random(73);
  for (int it = 0; it < iterations; ++it) {
    std::vector<double> host(kN);
    for (double& v : host) v = Uniform(random);
    Upload(b, host);
    CUDA(cudaMemset(x, 0, kN * sizeof(double)));
    void* arguments[] = {&b, &x, &r, &p, &ap, &parts};
    CUDA(cudaLaunchCooperativeKernel(reinterpret_cast<void*>(Solve), kBlocks,
                                     kBlock, arguments, 0, nullptr));
    const auto got = Download(x, kN);
    ExpectAllNear(got, SolveOnHost(host), 1e-9, 1e-12, "x");
    for (int i = 0; i < kN; ++i) {
      ExpectNear(Row(got.data(), i), host[i], 0, 0.1, "b", i);
    }
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
