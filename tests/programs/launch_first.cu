// A kernel is the first thing that the program asks of CUDA, from a thread that
// is not the main one.
#include <thread>

#include "check.h"

__device__ unsigned counter;

__global__ void Count(unsigned add) { atomicAdd(&counter, add); }

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 20);
  Digest digest;
  unsigned want = 0;
  for (int it = 0; it < iterations; ++it) {
    std::thread([it] {
      Count<<<3, 64>>>(it + 1);
      CUDA(cudaGetLastError());
    }).join();
    want += 3 * 64 * (it + 1);
    unsigned got = 0;
    CUDA(cudaMemcpyFromSymbol(&got, counter, sizeof(got)));
    EXPECT(got == want);
    digest.AddValue(got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
