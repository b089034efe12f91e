// A child that was forked after its parent had used CUDA: CUDA is not for it
// (every call says that it is not initialized), and it lives on beside the
// parent without disturbing it. It does what helpers of data loaders do:
// computes on the processor, in memory that both share.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "check.h"

constexpr int kCount = 1024;

__global__ void Step(unsigned* data, const unsigned* add) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  data[i] = data[i] * 1664525u + add[i];
}

void ExpectNoCuda() {
  void* p = nullptr;
  EXPECT(cudaMalloc(&p, 16) == cudaErrorInitializationError);
  EXPECT(cudaMallocHost(&p, 16) == cudaErrorInitializationError);
  EXPECT(cudaDeviceSynchronize() == cudaErrorInitializationError);
  Step<<<1, 1>>>(nullptr, nullptr);
  EXPECT(cudaGetLastError() == cudaErrorInitializationError);
}

int Child(unsigned* shared, int in, int out) {
  ExpectNoCuda();
  unsigned seed = 0;
  while (read(in, &seed, sizeof(seed)) == sizeof(seed)) {
    for (int i = 0; i < kCount; ++i) {
      shared[i] = shared[i] * 69069u + seed + i;
    }
    if (seed % 64 == 0) ExpectNoCuda();
    EXPECT(write(out, &seed, sizeof(seed)) == sizeof(seed));
  }
  return 0;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 6);
  unsigned* device;
  unsigned* add;
  unsigned* pinned;
  CUDA(cudaMalloc(&device, kCount * sizeof(unsigned)));
  CUDA(cudaMalloc(&add, kCount * sizeof(unsigned)));
  CUDA(cudaMallocHost(&pinned, kCount * sizeof(unsigned)));
  CUDA(cudaMemset(device, 1, kCount * sizeof(unsigned)));
  void* const memory = mmap(nullptr, kCount * sizeof(unsigned),
                            PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                            -1, 0);
  EXPECT(memory != MAP_FAILED);
  unsigned* const shared = static_cast<unsigned*>(memory);
  int to_child[2], to_parent[2];
  EXPECT(pipe(to_child) == 0 && pipe(to_parent) == 0);
  const pid_t child = fork();
  EXPECT(child >= 0);
  if (child == 0) {
    close(to_child[1]);
    close(to_parent[0]);
    std::_Exit(Child(shared, to_child[0], to_parent[1]));
  }
  close(to_child[0]);
  close(to_parent[1]);
  std::vector<unsigned> want(kCount, 0x01010101u);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    const unsigned seed = it;
    EXPECT(write(to_child[1], &seed, sizeof(seed)) == sizeof(seed));
    unsigned done = 0;
    EXPECT(read(to_parent[0], &done, sizeof(done)) == sizeof(done));
    EXPECT(done == seed);
    std::memcpy(pinned, shared, kCount * sizeof(unsigned));
    CUDA(cudaMemcpyAsync(add, pinned, kCount * sizeof(unsigned),
                         cudaMemcpyHostToDevice));
    Step<<<kCount / 128, 128>>>(device, add);
    CUDA(cudaMemcpy(pinned, device, kCount * sizeof(unsigned),
                    cudaMemcpyDeviceToHost));
    for (int i = 0; i < kCount; ++i) {
      want[i] = want[i] * 1664525u + shared[i];
      EXPECT(pinned[i] == want[i]);
    }
    digest.Add(pinned, kCount * sizeof(unsigned));
    Progress(it, iterations);
  }
  close(to_child[1]);
  int status = 1;
  EXPECT(waitpid(child, &status, 0) == child && status == 0);
  CUDA(cudaFreeHost(pinned));
  CUDA(cudaFree(add));
  CUDA(cudaFree(device));
  return digest.Pass();
}
