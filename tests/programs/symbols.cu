// __device__ and __constant__ variables: initial values, copies to and from,
// addresses, a pointer stored in a symbol, and state that kernels keep there.
#include <vector>

#include "check.h"

__device__ int counter = 41;
__device__ unsigned table[64];
__device__ double weights[3] = {0.5, 0.25, 2.0};
__device__ int* target;
__constant__ float coefficients[8];
__constant__ int mode = 3;
__device__ int* const pointer_to_counter = &counter;

__global__ void Use(float* out, int n) {
  const int i = threadIdx.x;
  if (i == 0) atomicAdd(&counter, mode);
  if (i == 1) atomicAdd(pointer_to_counter, 1000);
  if (i < 64) table[i] = table[i] * 3 + i;
  if (i < n) {
    out[i] = coefficients[i % 8] * static_cast<float>(weights[i % 3]);
    target[i] = i * mode;
  }
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  const int n = 96;
  float* d_out;
  int* d_target;
  CUDA(cudaMalloc(&d_out, n * sizeof(float)));
  CUDA(cudaMalloc(&d_target, n * sizeof(int)));
  CUDA(cudaMemcpyToSymbol(target, &d_target, sizeof(d_target)));
  int want_counter = 41;
  CUDA(cudaMemcpyFromSymbol(&want_counter, counter, sizeof(int)));
  EXPECT(want_counter == 41);
  void* address;
  size_t bytes;
  CUDA(cudaGetSymbolAddress(&address, table));
  CUDA(cudaGetSymbolSize(&bytes, table));
  EXPECT(bytes == 64 * sizeof(unsigned));
  std::vector<unsigned> want_table(64, 0), got_table(64);
  const double weights_host[3] = {0.5, 0.25, 2.0};
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    float c[8];
    for (int i = 0; i < 8; ++i) c[i] = static_cast<float>(i * 10 + it);
    CUDA(cudaMemcpyToSymbol(coefficients, c, sizeof(c)));
    const int m = it % 5 + 1;
    CUDA(cudaMemcpyToSymbol(mode, &m, sizeof(m)));
    Use<<<1, 96>>>(d_out, n);
    float out[n];
    int targets[n], count;
    CUDA(cudaMemcpy(out, d_out, sizeof(out), cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(targets, d_target, sizeof(targets),
                    cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpyFromSymbol(&count, counter, sizeof(count)));
    CUDA(cudaMemcpy(got_table.data(), address, bytes, cudaMemcpyDeviceToHost));
    want_counter += m + 1000;
    for (unsigned i = 0; i < 64; ++i) want_table[i] = want_table[i] * 3 + i;
    EXPECT(count == want_counter && got_table == want_table);
    for (int i = 0; i < n; ++i) {
      EXPECT(out[i] == c[i % 8] * static_cast<float>(weights_host[i % 3]));
      EXPECT(targets[i] == i * m);
    }
    digest.AddValue(count);
    digest.Add(got_table.data(), bytes);
    digest.Add(out, sizeof(out));
    Progress(it, iterations);
  }
  return digest.Pass();
}
