// More than 1 GiB of device memory, mostly constant, partly changing; copies
// that cross every internal piece size.
#include <vector>

#include "check.h"

constexpr size_t kBytes = 288ull << 20;
constexpr int kBuffers = 4;

__global__ void Touch(unsigned* data, size_t words, size_t stride,
                      unsigned value) {
  const size_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i * stride < words) data[i * stride] += value + i;
}

__global__ void Sample(const unsigned* data, size_t words, size_t stride,
                       unsigned long long* sum) {
  const size_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i * stride < words) atomicAdd(sum, data[i * stride]);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 2);
  const size_t words = kBytes / sizeof(unsigned);
  const size_t stride = 65521;  // a prime: other chunks each time
  const size_t touched = (words + stride - 1) / stride;
  const int blocks = static_cast<int>((touched + 127) / 128);
  unsigned* buffers[kBuffers];
  unsigned long long* d_sum;
  // Asked before anything is taken.
  size_t free_at_first, total_at_first;
  CUDA(cudaMemGetInfo(&free_at_first, &total_at_first));
  EXPECT(free_at_first >= kBuffers * kBytes);
  EXPECT(free_at_first <= total_at_first);
  CUDA(cudaMalloc(&d_sum, sizeof(*d_sum)));
  for (int b = 0; b < kBuffers; ++b) {
    CUDA(cudaMalloc(&buffers[b], kBytes));
    CUDA(cudaMemset(buffers[b], b + 1, kBytes));
  }
  size_t free_bytes, total;
  CUDA(cudaMemGetInfo(&free_bytes, &total));
  EXPECT(total - free_bytes >= kBuffers * kBytes);
  EXPECT(total == total_at_first);
  std::vector<unsigned> changed(touched, 0);
  const size_t kWindow = 9 << 20;
  std::vector<unsigned char> window(kWindow);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    unsigned* data = buffers[0];
    Touch<<<blocks, 128>>>(data, words, stride, it);
    unsigned long long want = 0, sum = 0;
    for (size_t i = 0; i < touched; ++i) {
      changed[i] += it + static_cast<unsigned>(i);
      want += 0x01010101u + changed[i];
    }
    CUDA(cudaMemset(d_sum, 0, sizeof(*d_sum)));
    Sample<<<blocks, 128>>>(data, words, stride, d_sum);
    CUDA(cudaMemcpy(&sum, d_sum, sizeof(sum), cudaMemcpyDeviceToHost));
    EXPECT(sum == want);
    // A window with crooked ends to the device and back through another buffer.
    Random random(it);
    for (auto& x : window) x = static_cast<unsigned char>(random.Next());
    char* at = reinterpret_cast<char*>(buffers[1]) + 12345 + it % 1000;
    char* other = reinterpret_cast<char*>(buffers[2]) + (100 << 20) + 1;
    CUDA(cudaMemcpy(at, window.data(), kWindow, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(other, at, kWindow, cudaMemcpyDeviceToDevice));
    std::vector<unsigned char> back(kWindow + 2);
    CUDA(cudaMemcpy(back.data(), other - 1, kWindow + 2,
                    cudaMemcpyDeviceToHost));
    EXPECT(back.front() == 3 && back.back() == 3);
    EXPECT(std::memcmp(back.data() + 1, window.data(), kWindow) == 0);
    digest.AddValue(sum);
    digest.Add(back.data(), 4096);
    Progress(it, iterations);
  }
  for (unsigned* buffer : buffers) CUDA(cudaFree(buffer));
  return digest.Pass();
}
