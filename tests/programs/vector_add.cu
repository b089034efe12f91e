// c = a + b, then repeatedly into the same buffers: state lives on the device
// between iterations.
#include <vector>

#include "check.h"

__global__ void Add(const int* a, const int* b, int* c, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) c[i] = a[i] + b[i];
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  const int n = 100003;  // not a multiple of the block
  std::vector<int> a(n), b(n), want(n), got(n);
  Random random(1);
  for (int i = 0; i < n; ++i) {
    a[i] = static_cast<int>(random.Next());
    want[i] = b[i] = static_cast<int>(random.Next());
  }
  int *da, *db;
  CUDA(cudaMalloc(&da, n * sizeof(int)));
  CUDA(cudaMalloc(&db, n * sizeof(int)));
  CUDA(cudaMemcpy(da, a.data(), n * sizeof(int), cudaMemcpyHostToDevice));
  CUDA(cudaMemcpy(db, b.data(), n * sizeof(int), cudaMemcpyHostToDevice));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Add<<<(n + 255) / 256, 256>>>(da, db, db, n);
    CUDA(cudaGetLastError());
    CUDA(cudaMemcpy(got.data(), db, n * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; ++i) {
      want[i] = static_cast<int>(static_cast<unsigned>(want[i]) +
                                 static_cast<unsigned>(a[i]));
    }
    EXPECT(got == want);
    digest.Add(got.data(), n * sizeof(int));
    Progress(it, iterations);
  }
  CUDA(cudaFree(da));
  CUDA(cudaFree(db));
  return digest.Pass();
}
