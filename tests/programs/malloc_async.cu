// Stream-ordered allocation: freed memory is used again only when its stream
// has come so far.
#include <vector>

#include "check.h"

__global__ void Set(unsigned* data, unsigned value, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) data[i] = value + i;
}

__global__ void Accumulate(unsigned* into, const unsigned* from, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) into[i] += from[i];
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  const int n = 2048, kStreams = 3, kRounds = 6;
  cudaStream_t streams[kStreams];
  unsigned* sums[kStreams];
  for (int s = 0; s < kStreams; ++s) {
    CUDA(cudaStreamCreateWithFlags(&streams[s], cudaStreamNonBlocking));
    CUDA(cudaMallocAsync(&sums[s], n * sizeof(unsigned), streams[s]));
    CUDA(cudaMemsetAsync(sums[s], 0, n * sizeof(unsigned), streams[s]));
  }
  std::vector<std::vector<unsigned>> want(kStreams,
                                          std::vector<unsigned>(n, 0));
  std::vector<unsigned> got(n);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    for (int round = 0; round < kRounds; ++round) {
      for (int s = 0; s < kStreams; ++s) {
        unsigned* scratch;
        const int count = n >> (round % 3);
        CUDA(cudaMallocAsync(&scratch, count * sizeof(unsigned), streams[s]));
        const unsigned value = it * 1000 + round * 10 + s;
        Set<<<1, 256, 0, streams[s]>>>(scratch, value, count);
        Accumulate<<<1, 256, 0, streams[s]>>>(sums[s], scratch, count);
        CUDA(cudaFreeAsync(scratch, streams[s]));
        for (int i = 0; i < count; ++i) want[s][i] += value + i;
      }
    }
    for (int s = 0; s < kStreams; ++s) {
      CUDA(cudaMemcpyAsync(got.data(), sums[s], n * sizeof(unsigned),
                           cudaMemcpyDeviceToHost, streams[s]));
      CUDA(cudaStreamSynchronize(streams[s]));
      EXPECT(got == want[s]);
      digest.Add(got.data(), n * sizeof(unsigned));
    }
    Progress(it, iterations);
  }
  for (int s = 0; s < kStreams; ++s) {
    CUDA(cudaFreeAsync(sums[s], streams[s]));
    CUDA(cudaStreamSynchronize(streams[s]));
    CUDA(cudaStreamDestroy(streams[s]));
  }
  return digest.Pass();
}
