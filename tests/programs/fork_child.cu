// A child process uses CUDA on its own beside its parent; a child forked after
// the parent has used CUDA must get an error, not a hang or the parent's state.
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "check.h"

__global__ void Step(unsigned* data, unsigned seed) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  data[i] = data[i] * 69069u + seed + i;
}

unsigned long long Work(unsigned who, int iterations, bool talk) {
  const int n = 2048;
  unsigned* data;
  CUDA(cudaMalloc(&data, n * sizeof(unsigned)));
  CUDA(cudaMemset(data, 0, n * sizeof(unsigned)));
  std::vector<unsigned> want(n, 0), got(n);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Step<<<n / 128, 128>>>(data, who + it);
    for (int i = 0; i < n; ++i) want[i] = want[i] * 69069u + who + it + i;
    CUDA(cudaMemcpy(got.data(), data, n * sizeof(unsigned),
                    cudaMemcpyDeviceToHost));
    EXPECT(got == want);
    digest.Add(got.data(), n * sizeof(unsigned));
    if (talk) Progress(it, iterations);
  }
  return digest.value;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 6);
  int fds[2];
  EXPECT(pipe(fds) == 0);
  const pid_t child = fork();
  EXPECT(child >= 0);
  if (child == 0) {
    const unsigned long long value = Work(1000, iterations, false);
    EXPECT(write(fds[1], &value, sizeof(value)) == sizeof(value));
    std::exit(0);  // with exit handlers: the runtime's own run too
  }
  Digest digest;
  digest.AddValue(Work(1, iterations, true));
  unsigned long long from_child;
  EXPECT(read(fds[0], &from_child, sizeof(from_child)) == sizeof(from_child));
  digest.AddValue(from_child);
  int status;
  EXPECT(waitpid(child, &status, 0) == child && status == 0);
  const pid_t late = fork();
  EXPECT(late >= 0);
  if (late == 0) {
    void* p;
    std::_Exit(cudaMalloc(&p, 16) != cudaSuccess ? 0 : 1);
  }
  EXPECT(waitpid(late, &status, 0) == late && status == 0);
  // The parent is not disturbed.
  digest.AddValue(Work(2, 1, false));
  return digest.Pass();
}
