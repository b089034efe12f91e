// Reduction by warp shuffles, votes and one atomic per block.
#include <vector>

#include "check.h"

__device__ unsigned WarpSum(unsigned value) {
  for (int step = 16; step > 0; step /= 2) {
    value += __shfl_down_sync(0xffffffffu, value, step);
  }
  return value;
}

__global__ void Reduce(const unsigned* in, int n, unsigned* sum,
                       unsigned* largest, unsigned* odd) {
  __shared__ unsigned partial[32];
  unsigned local = 0;
  unsigned top = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n;
       i += gridDim.x * blockDim.x) {
    local += in[i];
    top = max(top, in[i]);
  }
  const unsigned votes = __ballot_sync(0xffffffffu, local & 1);
  for (int step = 16; step > 0; step /= 2) {
    top = max(top, __shfl_xor_sync(0xffffffffu, top, step));
  }
  local = WarpSum(local);
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  if (lane == 0) {
    partial[warp] = local;
    atomicMax(largest, top);
    atomicAdd(odd, __popc(votes));
  }
  __syncthreads();
  if (warp == 0) {
    const unsigned mine = lane < blockDim.x / 32 ? partial[lane] : 0;
    const unsigned total = WarpSum(mine);
    if (lane == 0) atomicAdd(sum, total);
  }
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 4);
  const int n = 60000;
  const int kBlocks = 12;
  const int kThreads = 256;
  std::vector<unsigned> in(n);
  unsigned *d_in, *d_out;
  CUDA(cudaMalloc(&d_in, n * sizeof(unsigned)));
  CUDA(cudaMalloc(&d_out, 3 * sizeof(unsigned)));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Random random(7 + it);
    unsigned sum = 0, largest = 0, odd = 0;
    std::vector<unsigned> per_thread(kBlocks * kThreads, 0);
    for (int i = 0; i < n; ++i) {
      in[i] = random.Next();
      sum += in[i];
      largest = in[i] > largest ? in[i] : largest;
      per_thread[i % (kBlocks * kThreads)] += in[i];
    }
    for (unsigned value : per_thread) odd += value & 1;
    CUDA(cudaMemcpy(d_in, in.data(), n * sizeof(unsigned),
                    cudaMemcpyHostToDevice));
    CUDA(cudaMemset(d_out, 0, 3 * sizeof(unsigned)));
    Reduce<<<kBlocks, kThreads>>>(d_in, n, d_out, d_out + 1, d_out + 2);
    unsigned out[3];
    CUDA(cudaMemcpy(out, d_out, sizeof(out), cudaMemcpyDeviceToHost));
    EXPECT(out[0] == sum && out[1] == largest && out[2] == odd);
    digest.Add(out, sizeof(out));
    Progress(it, iterations);
  }
  return digest.Pass();
}
