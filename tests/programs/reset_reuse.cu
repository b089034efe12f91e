// cudaDeviceReset in the middle: everything is gone, and a fresh start works;
// variables have their initial values again.
#include <vector>

#include "check.h"

__device__ int runs = 10;

__global__ void Fill(int* data, int n, int value) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i == 0) runs += 1;
  if (i < n) data[i] = value * i + runs * 0;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 1000;
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    int* data;
    cudaStream_t stream;
    CUDA(cudaMalloc(&data, n * sizeof(int)));
    CUDA(cudaStreamCreate(&stream));
    for (int k = 0; k < 3; ++k) {
      Fill<<<(n + 127) / 128, 128, 0, stream>>>(data, n, it + 2);
    }
    CUDA(cudaStreamSynchronize(stream));
    std::vector<int> got(n);
    CUDA(cudaMemcpy(got.data(), data, n * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; ++i) EXPECT(got[i] == (it + 2) * i);
    int count;
    CUDA(cudaMemcpyFromSymbol(&count, runs, sizeof(int)));
    EXPECT(count == 13);
    digest.Add(got.data(), n * sizeof(int));
    // With a stream and memory still alive.
    CUDA(cudaDeviceReset());
    Progress(it, iterations);
  }
  return digest.Pass();
}
