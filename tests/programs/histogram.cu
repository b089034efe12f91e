// Histograms with shared and global atomics of several types.
#include <vector>

#include "check.h"

__global__ void Count(const unsigned char* in, int n, unsigned* bins,
                      unsigned long long* weighted, double* sum) {
  __shared__ unsigned local[256];
  for (int i = threadIdx.x; i < 256; i += blockDim.x) local[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n;
       i += gridDim.x * blockDim.x) {
    atomicAdd(&local[in[i]], 1u);
    if (i % 16 == 0) {
      atomicAdd(weighted, static_cast<unsigned long long>(in[i]) << 20);
      atomicAdd(sum, 0.5 * in[i]);  // exact: multiples of a half
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 256; i += blockDim.x) {
    if (local[i] != 0) atomicAdd(&bins[i], local[i]);
  }
}

// A lock by compare-and-swap around a read-modify-write.
__global__ void Locked(int* lock, int* value) {
  if (threadIdx.x != 0) return;
  while (atomicCAS(lock, 0, 1) != 0) {
  }
  __threadfence();
  *static_cast<volatile int*>(value) = *static_cast<volatile int*>(value) + 3;
  __threadfence();
  atomicExch(lock, 0);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 50000;
  std::vector<unsigned char> in(n);
  unsigned char* d_in;
  unsigned* d_bins;
  unsigned long long* d_weighted;
  double* d_sum;
  int* d_lock;
  CUDA(cudaMalloc(&d_in, n));
  CUDA(cudaMalloc(&d_bins, 256 * sizeof(unsigned)));
  CUDA(cudaMalloc(&d_weighted, sizeof(unsigned long long)));
  CUDA(cudaMalloc(&d_sum, sizeof(double)));
  CUDA(cudaMalloc(&d_lock, 2 * sizeof(int)));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Random random(31 + it);
    std::vector<unsigned> want(256, 0), got(256);
    unsigned long long want_weighted = 0, weighted;
    double want_sum = 0, sum;
    for (int i = 0; i < n; ++i) {
      in[i] = static_cast<unsigned char>(random.Next() % 256);
      ++want[in[i]];
      if (i % 16 == 0) {
        want_weighted += static_cast<unsigned long long>(in[i]) << 20;
        want_sum += 0.5 * in[i];
      }
    }
    CUDA(cudaMemcpy(d_in, in.data(), n, cudaMemcpyHostToDevice));
    CUDA(cudaMemset(d_bins, 0, 256 * sizeof(unsigned)));
    CUDA(cudaMemset(d_weighted, 0, sizeof(weighted)));
    CUDA(cudaMemset(d_sum, 0, sizeof(sum)));
    CUDA(cudaMemset(d_lock, 0, 2 * sizeof(int)));
    Count<<<8, 128>>>(d_in, n, d_bins, d_weighted, d_sum);
    Locked<<<20, 32>>>(d_lock, d_lock + 1);
    int locked[2];
    CUDA(cudaMemcpy(got.data(), d_bins, 256 * sizeof(unsigned),
                    cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(&weighted, d_weighted, sizeof(weighted),
                    cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(&sum, d_sum, sizeof(sum), cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(locked, d_lock, sizeof(locked), cudaMemcpyDeviceToHost));
    EXPECT(got == want && weighted == want_weighted && sum == want_sum);
    EXPECT(locked[0] == 0 && locked[1] == 60);
    digest.Add(got.data(), 256 * sizeof(unsigned));
    digest.AddValue(sum);
    Progress(it, iterations);
  }
  return digest.Pass();
}
