// A family of processes, each with a session of its own: two workers that were
// forked before the parent used CUDA. Work goes out and results come back in
// memory that they share; turns are taken through pipes.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "check.h"

constexpr int kWorkers = 2;
constexpr int kCount = 4096;

__global__ void Step(unsigned* data, unsigned seed) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  data[i] = data[i] * 1664525u + seed + i;
}

struct Shared {
  unsigned rows[kWorkers][kCount];
};

struct Pipes {
  int to_worker[2];
  int to_parent[2];
};

// On this process's device, and on the processor.
void Advance(unsigned* device, unsigned* rows, unsigned seed) {
  std::vector<unsigned> want(rows, rows + kCount);
  for (int i = 0; i < kCount; ++i) want[i] = want[i] * 1664525u + seed + i;
  CUDA(cudaMemcpy(device, rows, kCount * sizeof(unsigned),
                  cudaMemcpyHostToDevice));
  Step<<<kCount / 128, 128>>>(device, seed);
  CUDA(cudaGetLastError());
  CUDA(cudaMemcpy(rows, device, kCount * sizeof(unsigned),
                  cudaMemcpyDeviceToHost));
  EXPECT(std::memcmp(rows, want.data(), kCount * sizeof(unsigned)) == 0);
}

// Ends when the parent closes its end.
int Worker(Shared* shared, int me, int in, int out) {
  unsigned* device = nullptr;
  unsigned seed = 0;
  while (read(in, &seed, sizeof(seed)) == sizeof(seed)) {
    if (device == nullptr) CUDA(cudaMalloc(&device, kCount * sizeof(unsigned)));
    Advance(device, shared->rows[me], seed);
    EXPECT(write(out, &seed, sizeof(seed)) == sizeof(seed));
  }
  if (device != nullptr) CUDA(cudaFree(device));
  return 0;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 6);
  void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  EXPECT(memory != MAP_FAILED);
  Shared* const shared = static_cast<Shared*>(memory);
  Pipes pipes[kWorkers];
  pid_t children[kWorkers];
  for (int w = 0; w < kWorkers; ++w) {
    EXPECT(pipe(pipes[w].to_worker) == 0 && pipe(pipes[w].to_parent) == 0);
    children[w] = fork();
    EXPECT(children[w] >= 0);
    if (children[w] == 0) {
      // Only its own ends: the others' must close with the parent.
      for (int other = 0; other <= w; ++other) {
        close(pipes[other].to_worker[1]);
        close(pipes[other].to_parent[0]);
      }
      std::exit(Worker(shared, w, pipes[w].to_worker[0],
                       pipes[w].to_parent[1]));
    }
    close(pipes[w].to_worker[0]);
    close(pipes[w].to_parent[1]);
  }
  unsigned* device;
  CUDA(cudaMalloc(&device, kCount * sizeof(unsigned)));
  std::vector<unsigned> own(kCount, 1);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    for (int w = 0; w < kWorkers; ++w) {
      const unsigned seed = it * kWorkers + w;
      EXPECT(write(pipes[w].to_worker[1], &seed, sizeof(seed)) ==
             sizeof(seed));
    }
    Advance(device, own.data(), it);  // while they work
    for (int w = 0; w < kWorkers; ++w) {
      unsigned done = 0;
      EXPECT(read(pipes[w].to_parent[0], &done, sizeof(done)) == sizeof(done));
      EXPECT(done == static_cast<unsigned>(it * kWorkers + w));
      for (int i = 0; i < kCount; ++i) own[i] ^= shared->rows[w][i];
    }
    digest.Add(own.data(), kCount * sizeof(unsigned));
    Progress(it, iterations);
  }
  for (int w = 0; w < kWorkers; ++w) close(pipes[w].to_worker[1]);
  for (int w = 0; w < kWorkers; ++w) {
    int status = 1;
    EXPECT(waitpid(children[w], &status, 0) == children[w] && status == 0);
  }
  CUDA(cudaFree(device));
  return digest.Pass();
}
