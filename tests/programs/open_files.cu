// Files that a job has open beside its GPU state: one that grows, one that was
// unlinked and is mapped, one that is written at its beginning again and again.
// Takes the directory for them as its second argument, and leaves them there:
// a later restore needs them. Without it they are gone at the end.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "check.h"

constexpr int kCount = 512;
constexpr size_t kGhostBytes = 1 << 16;

__global__ void Step(unsigned* data, unsigned seed) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  data[i] = data[i] * 22695477u + seed + i;
}

std::string Line(int i, unsigned value) {
  char text[64];
  std::snprintf(text, sizeof(text), "line %d %08x\n", i, value);
  return text;
}

int Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  EXPECT(fd >= 0);
  return fd;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 4);
  const std::string directory = argc > 2 ? argv[2] : "/tmp";
  const std::string name =
      directory + "/open_files." + std::to_string(getpid()) + ".";
  const int growing = Open(name + "growing");
  const int fixed = Open(name + "fixed");
  const int ghost = Open(name + "ghost");
  EXPECT(ftruncate(ghost, kGhostBytes) == 0);
  EXPECT(unlink((name + "ghost").c_str()) == 0);
  auto* const mapped = static_cast<unsigned*>(
      mmap(nullptr, kGhostBytes, PROT_READ | PROT_WRITE, MAP_SHARED, ghost, 0));
  EXPECT(mapped != MAP_FAILED);

  unsigned* data;
  CUDA(cudaMalloc(&data, kCount * sizeof(unsigned)));
  CUDA(cudaMemset(data, 0, kCount * sizeof(unsigned)));
  std::vector<unsigned> want(kCount, 0), got(kCount);
  std::string lines;
  for (int it = 0; it < iterations; ++it) {
    Step<<<kCount / 128, 128>>>(data, it);
    for (int i = 0; i < kCount; ++i) want[i] = want[i] * 22695477u + it + i;
    CUDA(cudaMemcpy(got.data(), data, kCount * sizeof(unsigned),
                    cudaMemcpyDeviceToHost));
    EXPECT(got == want);
    const std::string line = Line(it, got[it % kCount]);
    lines += line;
    EXPECT(write(growing, line.data(), line.size()) ==
           static_cast<ssize_t>(line.size()));
    EXPECT(pwrite(fixed, &it, sizeof(it), 0) == sizeof(it));
    // What was written before is still there: in the file and in the mapping.
    const int slots = kGhostBytes / sizeof(unsigned);
    if (it > 0) EXPECT(mapped[(it - 1) % slots] == unsigned(it) * 3);
    mapped[it % slots] = unsigned(it + 1) * 3;
    Progress(it, iterations);
  }
  std::string back(lines.size() + 1, '\0');
  EXPECT(pread(growing, back.data(), back.size(), 0) ==
         static_cast<ssize_t>(lines.size()));
  back.resize(lines.size());
  EXPECT(back == lines);
  int last = -1;
  EXPECT(pread(fixed, &last, sizeof(last), 0) == sizeof(last));
  EXPECT(last == iterations - 1);
  EXPECT(lseek(fixed, 0, SEEK_END) == sizeof(last));
  Digest digest;
  digest.Add(lines.data(), lines.size());
  digest.Add(mapped, kGhostBytes);
  if (argc <= 2) {
    EXPECT(unlink((name + "growing").c_str()) == 0);
    EXPECT(unlink((name + "fixed").c_str()) == 0);
  }
  return digest.Pass();
}
