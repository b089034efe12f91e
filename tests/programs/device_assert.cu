// A failed assertion: its text on standard error, error 710 from the calls that
// follow, what was printed before it on standard output.
#include <cassert>
#include <unistd.h>

#include "check.h"

__global__ void CheckIt(int* data, int wrong) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i == 0) printf("checking that none is %d\n", wrong);
  assert(data[i] != wrong && "as it must be");
  data[i] += 1;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  // Both streams to one place, for an order that does not change.
  std::setvbuf(stdout, nullptr, _IONBF, 0);
  EXPECT(dup2(1, 2) == 2);
  const int n = 64;
  int* data;
  CUDA(cudaMalloc(&data, n * sizeof(int)));
  int host[n];
  for (int i = 0; i < n; ++i) host[i] = i;
  CUDA(cudaMemcpy(data, host, sizeof(host), cudaMemcpyHostToDevice));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    CheckIt<<<2, n / 2>>>(data, -1);
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaMemcpy(host, data, sizeof(host), cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; ++i) EXPECT(host[i] == i + it + 1);
    digest.Add(host, sizeof(host));
    Progress(it, iterations);
  }
  CheckIt<<<2, n / 2>>>(data, iterations + 37);
  EXPECT(cudaDeviceSynchronize() == cudaErrorAssert);
  EXPECT(cudaMemcpy(host, data, sizeof(host), cudaMemcpyDeviceToHost) ==
         cudaErrorAssert);
  return digest.Pass();
}
