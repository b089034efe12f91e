// Several host threads with streams of their own, first use of CUDA included,
// and one that allocates and frees all the time.
#include <atomic>
#include <thread>
#include <vector>

#include "check.h"

__global__ void Mix(unsigned* data, unsigned seed) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned x = data[i] ^ seed;
  for (int k = 0; k < 4; ++k) x = x * 1664525u + 1013904223u;
  data[i] = x;
}

constexpr int kThreads = 4;
constexpr int kCount = 1024;

void Work(int id, int iterations, unsigned* result) {
  cudaStream_t stream;
  unsigned* data;
  CUDA(cudaSetDevice(0));
  CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CUDA(cudaMalloc(&data, kCount * sizeof(unsigned)));
  CUDA(cudaMemsetAsync(data, id, kCount * sizeof(unsigned), stream));
  std::vector<unsigned> want(kCount, 0x01010101u * id), got(kCount);
  for (int it = 0; it < iterations; ++it) {
    for (unsigned k = 0; k < 3; ++k) {
      Mix<<<kCount / 128, 128, 0, stream>>>(data, id * 100 + it * 3 + k);
      for (unsigned& x : want) {
        x ^= id * 100 + it * 3 + k;
        for (int m = 0; m < 4; ++m) x = x * 1664525u + 1013904223u;
      }
    }
    CUDA(cudaMemcpyAsync(got.data(), data, kCount * sizeof(unsigned),
                         cudaMemcpyDeviceToHost, stream));
    CUDA(cudaStreamSynchronize(stream));
    EXPECT(got == want);
    if (id == 0) Progress(it, iterations);
  }
  CUDA(cudaFree(data));
  CUDA(cudaStreamDestroy(stream));
  *result = got[id];
}

void Churn(const std::atomic<bool>* stop) {
  Random random(8);
  std::vector<void*> held;
  while (!*stop) {
    void* p;
    CUDA(cudaMalloc(&p, 1 + random.Next() % 100000));
    held.push_back(p);
    if (held.size() > 8) {
      CUDA(cudaFree(held.front()));
      held.erase(held.begin());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (void* p : held) CUDA(cudaFree(p));
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 8);
  std::atomic<bool> stop{false};
  unsigned results[kThreads];
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back(Work, i, iterations, &results[i]);
  }
  std::thread churn(Churn, &stop);
  for (auto& thread : threads) thread.join();
  stop = true;
  churn.join();
  Digest digest;
  digest.Add(results, sizeof(results));
  return digest.Pass();
}
