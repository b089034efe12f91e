// A kernel that spins on memory which another stream's copy sets, and two
// kernels that wait for each other.
#include "check.h"

__global__ void WaitFor(volatile int* flag, int value, int* out) {
  while (*flag != value) {
  }
  __threadfence_system();
  *out = value * 2;
}

__global__ void PingPong(volatile int* ball, int me, int turns, int* sum) {
  int total = 0;
  for (int turn = 0; turn < turns; ++turn) {
    while (*ball % 2 != me) {
    }
    total += *ball;
    __threadfence();
    *ball = *ball + 1;
  }
  *sum = total;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 4);
  cudaStream_t spinning, setting;
  CUDA(cudaStreamCreateWithFlags(&spinning, cudaStreamNonBlocking));
  CUDA(cudaStreamCreateWithFlags(&setting, cudaStreamNonBlocking));
  int *device, *pinned;
  CUDA(cudaMalloc(&device, 8 * sizeof(int)));
  CUDA(cudaMemset(device, 0, 8 * sizeof(int)));
  CUDA(cudaDeviceSynchronize());
  CUDA(cudaMallocHost(&pinned, 4 * sizeof(int)));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    WaitFor<<<1, 1, 0, spinning>>>(device, it + 1, device + 1);
    CUDA(cudaGetLastError());
    EXPECT(cudaStreamQuery(spinning) == cudaErrorNotReady);
    pinned[0] = it + 1;
    CUDA(cudaMemcpyAsync(device, pinned, sizeof(int), cudaMemcpyHostToDevice,
                         setting));
    CUDA(cudaMemcpyAsync(pinned + 1, device + 1, sizeof(int),
                         cudaMemcpyDeviceToHost, spinning));
    CUDA(cudaStreamSynchronize(spinning));
    EXPECT(pinned[1] == 2 * (it + 1));
    CUDA(cudaStreamSynchronize(setting));
    // Two kernels hand a counter to and fro.
    const int turns = 20;
    CUDA(cudaMemsetAsync(device + 2, 0, sizeof(int), setting));
    CUDA(cudaStreamSynchronize(setting));
    PingPong<<<1, 1, 0, spinning>>>(device + 2, 0, turns, device + 3);
    PingPong<<<1, 1, 0, setting>>>(device + 2, 1, turns, device + 4);
    CUDA(cudaDeviceSynchronize());
    int got[3];
    CUDA(cudaMemcpy(got, device + 2, sizeof(got), cudaMemcpyDeviceToHost));
    EXPECT(got[0] == 2 * turns && got[1] == turns * (turns - 1) &&
           got[2] == turns * turns);
    digest.AddValue(pinned[1]);
    digest.Add(got, sizeof(got));
    Progress(it, iterations);
  }
  CUDA(cudaFreeHost(pinned));
  return digest.Pass();
}
