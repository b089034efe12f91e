// Two translation units, each its own code image, with kernels and variables of
// the same names; each is loaded when first used.
#include <vector>

#include "check.h"

// two_modules_b.cu
void RunOther(int* data, int n);
int OtherCounter();

static __device__ int counter = 5;
static __constant__ int factor = 2;

static __global__ void Scale(int* data, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i == 0) counter += 1;
  if (i < n) data[i] = data[i] * factor + 1;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  const int n = 3000;
  int* data;
  CUDA(cudaMalloc(&data, n * sizeof(int)));
  CUDA(cudaMemset(data, 0, n * sizeof(int)));
  std::vector<int> want(n, 0), got(n);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Scale<<<(n + 255) / 256, 256>>>(data, n);
    CUDA(cudaGetLastError());
    RunOther(data, n);
    for (int i = 0; i < n; ++i) want[i] = ((want[i] * 2 + 1) * 3 - i) % 1000003;
    CUDA(cudaMemcpy(got.data(), data, n * sizeof(int), cudaMemcpyDeviceToHost));
    EXPECT(got == want);
    int mine;
    CUDA(cudaMemcpyFromSymbol(&mine, counter, sizeof(int)));
    EXPECT(mine == 5 + it + 1 && OtherCounter() == 100 + (it + 1) * 10);
    digest.Add(got.data(), n * sizeof(int));
    Progress(it, iterations);
  }
  return digest.Pass();
}
