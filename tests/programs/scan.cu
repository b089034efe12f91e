// Inclusive prefix sum in three kernels, double-buffered in shared memory.
#include <vector>

#include "check.h"

constexpr int kBlock = 256;

__global__ void ScanBlocks(const int* in, int* out, int* totals, int n) {
  __shared__ int buffer[2][kBlock];
  const int i = blockIdx.x * kBlock + threadIdx.x;
  int from = 0;
  buffer[0][threadIdx.x] = i < n ? in[i] : 0;
  __syncthreads();
  for (int step = 1; step < kBlock; step *= 2) {
    const int to = 1 - from;
    int value = buffer[from][threadIdx.x];
    if (threadIdx.x >= step) value += buffer[from][threadIdx.x - step];
    buffer[to][threadIdx.x] = value;
    from = to;
    __syncthreads();
  }
  if (i < n) out[i] = buffer[from][threadIdx.x];
  if (threadIdx.x == kBlock - 1) totals[blockIdx.x] = buffer[from][kBlock - 1];
}

__global__ void ScanTotals(int* totals, int blocks) {
  int sum = 0;
  for (int i = 0; i < blocks; ++i) {
    const int value = totals[i];
    totals[i] = sum;
    sum += value;
  }
}

__global__ void AddOffsets(int* out, const int* totals, int n) {
  const int i = blockIdx.x * kBlock + threadIdx.x;
  if (i < n) out[i] += totals[blockIdx.x];
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 4);
  const int n = 30011;
  const int blocks = (n + kBlock - 1) / kBlock;
  std::vector<int> in(n), out(n);
  int *d_in, *d_out, *d_totals;
  CUDA(cudaMalloc(&d_in, n * sizeof(int)));
  CUDA(cudaMalloc(&d_out, n * sizeof(int)));
  CUDA(cudaMalloc(&d_totals, blocks * sizeof(int)));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Random random(it);
    for (int& x : in) x = static_cast<int>(random.Next() % 1000) - 500;
    CUDA(cudaMemcpy(d_in, in.data(), n * sizeof(int), cudaMemcpyHostToDevice));
    ScanBlocks<<<blocks, kBlock>>>(d_in, d_out, d_totals, n);
    ScanTotals<<<1, 1>>>(d_totals, blocks);
    AddOffsets<<<blocks, kBlock>>>(d_out, d_totals, n);
    CUDA(cudaMemcpy(out.data(), d_out, n * sizeof(int),
                    cudaMemcpyDeviceToHost));
    int sum = 0;
    for (int i = 0; i < n; ++i) {
      sum += in[i];
      EXPECT(out[i] == sum);
    }
    digest.Add(out.data(), n * sizeof(int));
    Progress(it, iterations);
  }
  return digest.Pass();
}
