// Limits of a context over the life of a program: the heap and the stack are as
// large as was asked for, also after a restore.
#include <vector>

#include "check.h"

__global__ void TakeAll(void** pieces, int n, size_t bytes, int* got) {
  int count = 0;
  for (int i = 0; i < n; ++i) {
    pieces[i] = malloc(bytes);
    if (pieces[i] != nullptr) {
      *static_cast<int*>(pieces[i]) = i;
      ++count;
    }
  }
  *got = count;
}

__global__ void GiveAll(void** pieces, int n, int* sum) {
  *sum = 0;
  for (int i = 0; i < n; ++i) {
    if (pieces[i] != nullptr) *sum += *static_cast<int*>(pieces[i]);
    free(pieces[i]);
  }
}

__device__ __noinline__ int Down(int n, int* seen) {
  if (n == 0) return 0;
  seen[n % 32] += n;
  return 1 + Down(n - 1, seen) * (seen[0] >= 0);
}
__global__ void Deep(int n, int* seen, int* out) { *out = Down(n, seen); }

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const size_t heap = 24 << 20;
  CUDA(cudaDeviceSetLimit(cudaLimitMallocHeapSize, heap));
  CUDA(cudaDeviceSetLimit(cudaLimitStackSize, 96 << 10));
  const int n = 40;
  void** pieces;
  int* numbers;
  CUDA(cudaMalloc(&pieces, n * sizeof(void*)));
  CUDA(cudaMalloc(&numbers, 64 * sizeof(int)));
  CUDA(cudaMemset(numbers, 0, 64 * sizeof(int)));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    TakeAll<<<1, 1>>>(pieces, n, 1 << 20, numbers);
    int got = 0;
    CUDA(cudaMemcpy(&got, numbers, sizeof(got), cudaMemcpyDeviceToHost));
    EXPECT(got == 23);  // the rest goes to headers
    GiveAll<<<1, 1>>>(pieces, n, numbers);
    int sum = 0;
    CUDA(cudaMemcpy(&sum, numbers, sizeof(sum), cudaMemcpyDeviceToHost));
    EXPECT(sum == 22 * 23 / 2);
    Deep<<<1, 1>>>(1500, numbers + 1, numbers);
    int depth = 0;
    CUDA(cudaMemcpy(&depth, numbers, sizeof(depth), cudaMemcpyDeviceToHost));
    EXPECT(depth == 1500);
    size_t limit = 0;
    CUDA(cudaDeviceGetLimit(&limit, cudaLimitMallocHeapSize));
    EXPECT(limit == heap);
    EXPECT(cudaDeviceSetLimit(cudaLimitMallocHeapSize, heap) ==
           cudaErrorInvalidValue);
    (void)cudaGetLastError();
    digest.AddValue(got + sum + depth);
    Progress(it, iterations);
  }
  return digest.Pass();
}
