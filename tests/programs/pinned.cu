// Pinned host memory: asynchronous copies that overlap with kernels, mapped
// access from kernels through device pointers, polling by the host.
#include <vector>

#include "check.h"

__global__ void Square(const int* in, int* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = in[i] * in[i];
}

__global__ void Announce(volatile int* mailbox, int value) {
  mailbox[1] = value * 7;
  __threadfence_system();
  mailbox[0] = value;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  const int n = 1 << 14, kParts = 4;
  int *in, *out, *d_in, *d_out, *mapped, *d_mapped;
  CUDA(cudaMallocHost(&in, n * sizeof(int)));
  CUDA(cudaHostAlloc(&out, n * sizeof(int), cudaHostAllocPortable));
  CUDA(cudaHostAlloc(&mapped, n * sizeof(int), cudaHostAllocMapped));
  CUDA(cudaHostGetDevicePointer(&d_mapped, mapped, 0));
  CUDA(cudaMalloc(&d_in, n * sizeof(int)));
  CUDA(cudaMalloc(&d_out, n * sizeof(int)));
  cudaPointerAttributes attributes;
  CUDA(cudaPointerGetAttributes(&attributes, in));
  EXPECT(attributes.type == cudaMemoryTypeHost);
  CUDA(cudaPointerGetAttributes(&attributes, d_in));
  EXPECT(attributes.type == cudaMemoryTypeDevice);
  cudaStream_t streams[kParts];
  for (auto& stream : streams) CUDA(cudaStreamCreate(&stream));
  Digest digest;
  Random random(12);
  for (int it = 0; it < iterations; ++it) {
    for (int i = 0; i < n; ++i) in[i] = static_cast<int>(random.Next() % 40000);
    std::memset(out, 0xff, n * sizeof(int));
    const int part = n / kParts;
    for (int p = 0; p < kParts; ++p) {
      const int at = p * part;
      CUDA(cudaMemcpyAsync(d_in + at, in + at, part * sizeof(int),
                           cudaMemcpyHostToDevice, streams[p]));
      Square<<<part / 128, 128, 0, streams[p]>>>(d_in + at, d_out + at, part);
      CUDA(cudaMemcpyAsync(out + at, d_out + at, part * sizeof(int),
                           cudaMemcpyDeviceToHost, streams[p]));
    }
    CUDA(cudaDeviceSynchronize());
    for (int i = 0; i < n; ++i) EXPECT(out[i] == in[i] * in[i]);
    // The kernel reads device memory and writes host memory.
    std::memset(mapped, 0, n * sizeof(int));
    Square<<<n / 256, 256>>>(d_in, d_mapped, n);
    CUDA(cudaDeviceSynchronize());
    for (int i = 0; i < n; ++i) EXPECT(mapped[i] == in[i] * in[i]);
    // The host polls what a kernel writes.
    volatile int* mailbox = mapped;
    mailbox[0] = -1;
    Announce<<<1, 1>>>(d_mapped, it + 1);
    CUDA(cudaGetLastError());
    while (mailbox[0] != it + 1) {
      const cudaError_t state = cudaStreamQuery(0);
      EXPECT(state == cudaSuccess || state == cudaErrorNotReady);
    }
    EXPECT(mailbox[1] == (it + 1) * 7);
    CUDA(cudaDeviceSynchronize());
    digest.Add(out, n * sizeof(int));
    Progress(it, iterations);
  }
  CUDA(cudaFreeHost(in));
  CUDA(cudaFreeHost(out));
  CUDA(cudaFreeHost(mapped));
  return digest.Pass();
}
