// Errors as CUDA reports them: what a program can recover from, and what it
// cannot (in a child process, since such a process is lost).
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

__global__ void Write(int* p) { *p = 1; }
__global__ void __launch_bounds__(64) Small(int* p) { p[threadIdx.x] = 2; }

// A stray pointer: 700 at the next synchronization and ever after.
void IllegalAddress() {
  int* good;
  CUDA(cudaMalloc(&good, 1024));
  Write<<<1, 1>>>(reinterpret_cast<int*>(0x10));
  CUDA(cudaGetLastError());  // the launch itself is fine
  EXPECT(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  EXPECT(cudaGetLastError() == cudaErrorIllegalAddress);
  int value;
  EXPECT(cudaMemcpy(&value, good, 4, cudaMemcpyDeviceToHost) ==
         cudaErrorIllegalAddress);
  EXPECT(cudaMalloc(&good, 16) == cudaErrorIllegalAddress);
  std::_Exit(0);
}

void InChild(void (*body)()) {
  std::fflush(stdout);
  const pid_t child = fork();
  EXPECT(child >= 0);
  if (child == 0) {
    body();
    std::_Exit(2);
  }
  int status = 0;
  EXPECT(waitpid(child, &status, 0) == child);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 2);
  InChild(IllegalAddress);  // before this process uses CUDA
  int* p;
  CUDA(cudaMalloc(&p, 1024));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    // Too large for the device, reported at the call; not sticky.
    Write<<<1, 2048>>>(p);
    cudaError_t error = cudaGetLastError();
    EXPECT(error == cudaErrorInvalidConfiguration ||
           error == cudaErrorInvalidValue);
    EXPECT(cudaGetLastError() == cudaSuccess);
    Write<<<dim3(1, 70000), 1>>>(p);
    error = cudaGetLastError();
    EXPECT(error == cudaErrorInvalidConfiguration ||
           error == cudaErrorInvalidValue);
    Small<<<1, 128>>>(p);  // more threads than the kernel was built for
    EXPECT(cudaGetLastError() != cudaSuccess);
    // Out of memory, and on.
    void* huge = nullptr;
    EXPECT(cudaMalloc(&huge, 1ull << 50) == cudaErrorMemoryAllocation);
    EXPECT(cudaGetLastError() == cudaErrorMemoryAllocation);
    EXPECT(cudaPeekAtLastError() == cudaSuccess);
    // Frees what is not an allocation.
    int* q;
    CUDA(cudaMalloc(&q, 64));
    CUDA(cudaFree(q));
    EXPECT(cudaFree(q) == cudaErrorInvalidValue);
    EXPECT(cudaFree(p + 1) == cudaErrorInvalidValue);
    CUDA(cudaFree(nullptr));
    cudaGetLastError();
    // Bad arguments.
    EXPECT(cudaMemcpy(nullptr, p, 16, cudaMemcpyDeviceToHost) ==
           cudaErrorInvalidValue);
    EXPECT(cudaSetDevice(1000) == cudaErrorInvalidDevice);
    cudaGetLastError();
    // All well after that.
    Write<<<1, 1>>>(p + it % 4);
    Small<<<1, 64>>>(p + 16);
    int got[80];
    CUDA(cudaMemcpy(got, p, sizeof(got), cudaMemcpyDeviceToHost));
    EXPECT(got[it % 4] == 1 && got[16] == 2 && got[79] == 2);
    digest.Add(got + 16, 64 * sizeof(int));
    Progress(it, iterations);
  }
  return digest.Pass();
}
