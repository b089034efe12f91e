// Several streams ordered by events, priorities, the legacy default stream
// beside them, host functions, queries and elapsed time.
#include <vector>

#include "check.h"

constexpr int kStreams = 6;
constexpr int kCount = 4096;

// One step of a chain: multiplication does not commute with addition, so any
// wrong order shows.
__global__ void Apply(unsigned* data, unsigned factor, unsigned term) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  data[i] = data[i] * factor + term;
}

__global__ void Combine(unsigned* into, const unsigned* from) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  into[i] = into[i] * 31 + from[i];
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 6);
  cudaStream_t streams[kStreams];
  cudaEvent_t done[kStreams], start, stop;
  unsigned* data[kStreams];
  unsigned* joint;
  int least, greatest;
  CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  EXPECT(greatest <= least);
  for (int s = 0; s < kStreams; ++s) {
    CUDA(cudaStreamCreateWithPriority(
        &streams[s], s % 2 ? cudaStreamNonBlocking : cudaStreamDefault,
        s == 0 ? greatest : least));
    CUDA(cudaEventCreateWithFlags(&done[s], cudaEventDisableTiming));
    CUDA(cudaMalloc(&data[s], kCount * sizeof(unsigned)));
    CUDA(cudaMemset(data[s], s, kCount * sizeof(unsigned)));
  }
  CUDA(cudaMalloc(&joint, kCount * sizeof(unsigned)));
  CUDA(cudaMemset(joint, 0, kCount * sizeof(unsigned)));
  CUDA(cudaDeviceSynchronize());  // non-blocking streams do not wait for these
  CUDA(cudaEventCreate(&start));
  CUDA(cudaEventCreate(&stop));
  std::vector<unsigned> got(kCount);
  unsigned want[kStreams], want_joint = 0;
  for (int s = 0; s < kStreams; ++s) want[s] = 0x01010101u * s;
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    CUDA(cudaEventRecord(start, streams[0]));
    for (int s = 0; s < kStreams; ++s) {
      for (unsigned k = 1; k < 6; ++k) {
        Apply<<<kCount / 256, 256, 0, streams[s]>>>(data[s], k * 2 + 1, s + k);
        want[s] = want[s] * (k * 2 + 1) + s + k;
      }
      CUDA(cudaEventRecord(done[s], streams[s]));
    }
    // Stream 1 joins what all made, in a fixed order.
    for (int s = 0; s < kStreams; ++s) {
      CUDA(cudaStreamWaitEvent(streams[1], done[s], 0));
      Combine<<<kCount / 256, 256, 0, streams[1]>>>(joint, data[s]);
      want_joint = want_joint * 31 + want[s];
    }
    CUDA(cudaEventRecord(stop, streams[1]));
    // Nothing may change the data before it has been joined.
    for (int s = 0; s < kStreams; ++s) {
      CUDA(cudaStreamWaitEvent(streams[s], stop, 0));
    }
    const cudaError_t query = cudaStreamQuery(streams[1]);
    EXPECT(query == cudaSuccess || query == cudaErrorNotReady);
    CUDA(cudaEventSynchronize(stop));
    CUDA(cudaEventQuery(stop));
    float ms = -1;
    CUDA(cudaEventElapsedTime(&ms, start, stop));
    EXPECT(ms >= 0);
    // The default stream waits for the blocking streams by itself.
    CUDA(cudaMemcpy(got.data(), joint, kCount * sizeof(unsigned),
                    cudaMemcpyDeviceToHost));
    for (unsigned x : got) EXPECT(x == want_joint);
    Apply<<<kCount / 256, 256, 0, streams[2]>>>(data[2], 5, 1);
    Apply<<<kCount / 256, 256>>>(data[2], 7, 2);
    Apply<<<kCount / 256, 256, 0, streams[4]>>>(data[2], 3, 3);
    want[2] = ((want[2] * 5 + 1) * 7 + 2) * 3 + 3;
    CUDA(cudaDeviceSynchronize());
    digest.Add(got.data(), kCount * sizeof(unsigned));
    Progress(it, iterations);
  }
  for (int s = 0; s < kStreams; ++s) {
    CUDA(cudaMemcpy(got.data(), data[s], kCount * sizeof(unsigned),
                    cudaMemcpyDeviceToHost));
    for (unsigned x : got) EXPECT(x == want[s]);
    CUDA(cudaStreamDestroy(streams[s]));
    CUDA(cudaEventDestroy(done[s]));
  }
  return digest.Pass();
}
