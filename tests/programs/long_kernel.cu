// Kernels that take long, several queued behind each other: whenever one looks,
// a kernel runs, calls wait behind it and a host thread sleeps in a
// synchronizing call.
#include <vector>

#include "check.h"

constexpr int kQueued = 3;
constexpr unsigned long long kNanoseconds = 30'000'000;

__device__ unsigned long long Now() {
  unsigned long long t;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
  return t;
}

__global__ void Linger(unsigned* data, unsigned seed) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned before = data[i];
  const unsigned long long start = Now();
  while (Now() - start < kNanoseconds) {
  }
  data[i] = before * 2654435761u + seed + i;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 64;
  unsigned* data;
  cudaStream_t stream;
  CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CUDA(cudaMalloc(&data, n * sizeof(unsigned)));
  std::vector<unsigned> want(n, 0x07070707u), got(n);
  CUDA(cudaMemset(data, 7, n * sizeof(unsigned)));
  CUDA(cudaDeviceSynchronize());
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    for (int k = 0; k < kQueued; ++k) {
      const unsigned seed = it * kQueued + k;
      Linger<<<2, n / 2, 0, stream>>>(data, seed);
      CUDA(cudaGetLastError());
      for (int i = 0; i < n; ++i) want[i] = want[i] * 2654435761u + seed + i;
    }
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaMemcpy(got.data(), data, n * sizeof(unsigned),
                    cudaMemcpyDeviceToHost));
    EXPECT(got == want);
    digest.Add(got.data(), n * sizeof(unsigned));
    Progress(it, iterations);
  }
  CUDA(cudaFree(data));
  CUDA(cudaStreamDestroy(stream));
  return digest.Pass();
}
