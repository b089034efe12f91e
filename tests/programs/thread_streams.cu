// Compiled with -default-stream per-thread: each host thread's kernels go to a
// stream of its own, made at its first use and gone with the thread.
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"

constexpr int kThreads = 4;
constexpr int kCount = 512;

__global__ void Step(unsigned* data, unsigned add) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  data[i] = data[i] * 1664525u + add;
}

// Waits for the word that the copy of another thread's stream sets: on one
// common stream this would never end.
__global__ void Hold(volatile unsigned* word) {
  while (*word == 0) {
  }
}

void Work(int id, int it, unsigned* data, std::vector<unsigned>* got) {
  for (unsigned k = 0; k < 3; ++k) {
    Step<<<kCount / 128, 128>>>(data, id * 100 + it * 3 + k);
  }
  CUDA(cudaGetLastError());
  CUDA(cudaMemcpyAsync(got->data(), data, kCount * sizeof(unsigned),
                       cudaMemcpyDeviceToHost, cudaStreamPerThread));
  CUDA(cudaStreamSynchronize(cudaStreamPerThread));
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 10);
  unsigned* data[kThreads];
  unsigned* word;
  std::vector<unsigned> want[kThreads];
  for (int t = 0; t < kThreads; ++t) {
    CUDA(cudaMalloc(&data[t], kCount * sizeof(unsigned)));
    CUDA(cudaMemset(data[t], t, kCount * sizeof(unsigned)));
    want[t].assign(kCount, 0x01010101u * t);
  }
  CUDA(cudaMalloc(&word, sizeof(unsigned)));
  CUDA(cudaDeviceSynchronize());
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    CUDA(cudaMemset(word, 0, sizeof(unsigned)));
    CUDA(cudaDeviceSynchronize());
    Hold<<<1, 1>>>(word);
    std::vector<std::thread> threads;
    std::vector<unsigned> got[kThreads];
    for (int t = 0; t < kThreads; ++t) {
      got[t].resize(kCount);
      threads.emplace_back(Work, t, it, data[t], &got[t]);
    }
    for (std::thread& thread : threads) thread.join();
    std::thread([word] {
      const unsigned one = 1;
      CUDA(cudaMemcpyAsync(word, &one, sizeof(one), cudaMemcpyHostToDevice,
                           cudaStreamPerThread));
      CUDA(cudaStreamSynchronize(cudaStreamPerThread));
    }).join();
    CUDA(cudaDeviceSynchronize());
    for (int t = 0; t < kThreads; ++t) {
      for (unsigned& x : want[t]) {
        for (unsigned k = 0; k < 3; ++k) {
          x = x * 1664525u + (t * 100 + it * 3 + k);
        }
      }
      EXPECT(got[t] == want[t]);
      digest.Add(got[t].data(), kCount * sizeof(unsigned));
    }
    Progress(it, iterations);
  }
  return digest.Pass();
}
