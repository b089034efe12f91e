// The second translation unit of two_modules.
#include "check.h"

static __device__ int counter = 100;
static __constant__ int factor = 3;

static __global__ void Scale(int* data, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i == 0) counter += 10;
  if (i < n) data[i] = (data[i] * factor - i) % 1000003;
}

void RunOther(int* data, int n) {
  Scale<<<(n + 127) / 128, 128>>>(data, n);
  CUDA(cudaGetLastError());
}

int OtherCounter() {
  int value;
  CUDA(cudaMemcpyFromSymbol(&value, counter, sizeof(int)));
  return value;
}
