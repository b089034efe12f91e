// A program that uses CUDA and starts itself again (posix_spawn) now and then;
// the child uses CUDA on its own and tells its result through a pipe.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "check.h"

extern char** environ;

constexpr int kCount = 2048;
constexpr int kEvery = 16;

__global__ void Step(unsigned* data, unsigned seed) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  data[i] = data[i] * 69069u + seed + i;
}

unsigned long long Work(unsigned* device, unsigned seed) {
  std::vector<unsigned> want(kCount), got(kCount);
  CUDA(cudaMemset(device, 0, kCount * sizeof(unsigned)));
  for (unsigned k = 0; k < 4; ++k) {
    Step<<<kCount / 128, 128>>>(device, seed + k);
    for (int i = 0; i < kCount; ++i) want[i] = want[i] * 69069u + seed + k + i;
  }
  CUDA(cudaMemcpy(got.data(), device, kCount * sizeof(unsigned),
                  cudaMemcpyDeviceToHost));
  EXPECT(got == want);
  Digest digest;
  digest.Add(got.data(), kCount * sizeof(unsigned));
  return digest.value;
}

int Child(unsigned seed) {
  unsigned* device;
  CUDA(cudaMalloc(&device, kCount * sizeof(unsigned)));
  const unsigned long long value = Work(device, seed);
  // Its standard output is the pipe.
  EXPECT(write(STDOUT_FILENO, &value, sizeof(value)) == sizeof(value));
  return 0;
}

pid_t Spawn(const char* self, unsigned seed, int* from_child) {
  int fds[2];
  EXPECT(pipe(fds) == 0);
  posix_spawn_file_actions_t actions;
  EXPECT(posix_spawn_file_actions_init(&actions) == 0);
  EXPECT(posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO) ==
         0);
  EXPECT(posix_spawn_file_actions_addclose(&actions, fds[0]) == 0);
  EXPECT(posix_spawn_file_actions_addclose(&actions, fds[1]) == 0);
  std::string program = self;
  std::string flag = "--child";
  std::string number = std::to_string(seed);
  char* argv[] = {program.data(), flag.data(), number.data(), nullptr};
  pid_t child = -1;
  EXPECT(posix_spawn(&child, self, &actions, nullptr, argv, environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  close(fds[1]);
  *from_child = fds[0];
  return child;
}

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--child") == 0) {
    return Child(static_cast<unsigned>(std::atoi(argv[2])));
  }
  const int iterations = Iterations(argc, argv, 6);
  unsigned* device;
  CUDA(cudaMalloc(&device, kCount * sizeof(unsigned)));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    const bool spawn = it % kEvery == 0;
    int from_child = -1;
    pid_t child = -1;
    if (spawn) child = Spawn(argv[0], it, &from_child);
    digest.AddValue(Work(device, it + 1));
    if (spawn) {
      unsigned long long value = 0;
      EXPECT(read(from_child, &value, sizeof(value)) == sizeof(value));
      close(from_child);
      int status = 1;
      EXPECT(waitpid(child, &status, 0) == child && status == 0);
      EXPECT(value == Work(device, it));
      digest.AddValue(value);
    }
    Progress(it, iterations);
  }
  CUDA(cudaFree(device));
  return digest.Pass();
}
