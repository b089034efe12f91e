// A thousand short kernels queued before anybody waits, and a host thread that
// holds a lock and computes without calling anything.
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "check.h"

constexpr int kCount = 256;
constexpr int kQueued = 1000;

__global__ void Step(unsigned* data, unsigned seed) {
  const int i = threadIdx.x;
  unsigned x = data[i];
  for (int k = 0; k < 100; ++k) x = x * 1664525u + seed + i;
  data[i] = x;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  std::mutex lock;
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    const std::lock_guard<std::mutex> held(lock);
    volatile unsigned spin = 0;
    while (!stop.load(std::memory_order_relaxed)) spin = spin * 3 + 1;
  });
  unsigned* data;
  CUDA(cudaMalloc(&data, kCount * sizeof(unsigned)));
  CUDA(cudaMemset(data, 7, kCount * sizeof(unsigned)));
  std::vector<unsigned> want(kCount, 0x07070707u), got(kCount);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    for (int q = 0; q < kQueued; ++q) {
      Step<<<1, kCount>>>(data, it * kQueued + q);
    }
    CUDA(cudaGetLastError());
    for (int q = 0; q < kQueued; ++q) {
      for (int i = 0; i < kCount; ++i) {
        for (int k = 0; k < 100; ++k) {
          want[i] = want[i] * 1664525u + it * kQueued + q + i;
        }
      }
    }
    CUDA(cudaMemcpy(got.data(), data, kCount * sizeof(unsigned),
                    cudaMemcpyDeviceToHost));
    EXPECT(got == want);
    digest.Add(got.data(), kCount * sizeof(unsigned));
    Progress(it, iterations);
  }
  stop = true;
  busy.join();
  CUDA(cudaFree(data));
  return digest.Pass();
}
