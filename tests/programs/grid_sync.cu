// A cooperative launch: all blocks meet several times inside one kernel.
#include <cooperative_groups.h>

#include <vector>

#include "check.h"

__global__ void Rounds(unsigned* data, unsigned* spare, int n, int rounds) {
  const auto grid = cooperative_groups::this_grid();
  for (int r = 0; r < rounds; ++r) {
    unsigned* from = r % 2 ? spare : data;
    unsigned* to = r % 2 ? data : spare;
    for (int i = grid.thread_rank(); i < n; i += grid.size()) {
      to[i] = from[(i * 7 + r) % n] * 3 + from[i];
    }
    grid.sync();
  }
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  int n = 2500, rounds = 6;
  unsigned *data, *spare;
  CUDA(cudaMalloc(&data, n * sizeof(unsigned)));
  CUDA(cudaMalloc(&spare, n * sizeof(unsigned)));
  std::vector<unsigned> want(n), next(n), got(n);
  for (int i = 0; i < n; ++i) want[i] = i * 17 + 3;
  CUDA(cudaMemcpy(data, want.data(), n * sizeof(unsigned),
                  cudaMemcpyHostToDevice));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    void* arguments[] = {&data, &spare, &n, &rounds};
    CUDA(cudaLaunchCooperativeKernel(reinterpret_cast<void*>(Rounds), 8, 64,
                                     arguments, 0, 0));
    for (int r = 0; r < rounds; ++r) {
      for (int i = 0; i < n; ++i) {
        next[i] = want[(i * 7 + r) % n] * 3 + want[i];
      }
      want.swap(next);
    }
    CUDA(cudaMemcpy(got.data(), data, n * sizeof(unsigned),
                    cudaMemcpyDeviceToHost));
    EXPECT(got == want);
    digest.Add(got.data(), n * sizeof(unsigned));
    Progress(it, iterations);
  }
  return digest.Pass();
}
