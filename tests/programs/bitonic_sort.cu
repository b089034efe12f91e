// Bitonic sort: long strides through global memory, short ones in shared memory.
#include <algorithm>

#include "arrays.h"

constexpr int kBlock = 256;

__global__ void GlobalStep(unsigned* data, int size, int stride) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  const int i = (t / stride) * 2 * stride + t % stride;
  const bool up = (i & size) == 0;
  const unsigned a = data[i], b = data[i + stride];
  if ((a > b) == up) {
    data[i] = b;
    data[i + stride] = a;
  }
}

// All strides below 2 * kBlock of the sizes `first` … `last`.
__global__ void SharedSteps(unsigned* data, int first, int last) {
  __shared__ unsigned part[2 * kBlock];
  const int base = blockIdx.x * 2 * kBlock;
  part[threadIdx.x] = data[base + threadIdx.x];
  part[threadIdx.x + kBlock] = data[base + threadIdx.x + kBlock];
  for (int size = first; size <= last; size *= 2) {
    for (int stride = min(size / 2, kBlock); stride > 0; stride /= 2) {
      __syncthreads();
      const int i =
          (threadIdx.x / stride) * 2 * stride + threadIdx.x % stride;
      const bool up = ((base + i) & size) == 0;
      const unsigned a = part[i], b = part[i + stride];
      if ((a > b) == up) {
        part[i] = b;
        part[i + stride] = a;
      }
    }
  }
  __syncthreads();
  data[base + threadIdx.x] = part[threadIdx.x];
  data[base + threadIdx.x + kBlock] = part[threadIdx.x + kBlock];
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  const int n = 4096;
  unsigned* data = Allocate<unsigned>(n);
  Digest digest;
  Random random(7);
  for (int it = 0; it < iterations; ++it) {
    std::vector<unsigned> keys(n);
    for (unsigned& key : keys) key = random.Next() % (it % 2 ? 100 : 1u << 31);
    Upload(data, keys);
    SharedSteps<<<n / (2 * kBlock), kBlock>>>(data, 2, 2 * kBlock);
    for (int size = 4 * kBlock; size <= n; size *= 2) {
      for (int stride = size / 2; stride > kBlock; stride /= 2) {
        GlobalStep<<<n / (2 * kBlock), kBlock>>>(data, size, stride);
      }
      SharedSteps<<<n / (2 * kBlock), kBlock>>>(data, size, size);
    }
    std::sort(keys.begin(), keys.end());
    const auto got = Download(data, n);
    ExpectSame(got, keys, "sorted");
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
