// Heat spreading over a plate: the program of scripts/demo. Prints the state of
// every tenth step, so that one can watch it go on, and checks the end against
// the CPU.
#include <utility>
#include <vector>

#include "check.h"

namespace {

constexpr int kSide = 192;

__global__ void Step(const float* from, float* to) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= kSide || y >= kSide) return;
  const int i = y * kSide + x;
  if (x == 0 || y == 0 || x == kSide - 1 || y == kSide - 1) {
    to[i] = from[i];
    return;
  }
  // Each product and sum rounded by itself: the same on CPU and GPU.
  const float around = __fadd_rn(__fadd_rn(from[i - 1], from[i + 1]),
                                 __fadd_rn(from[i - kSide], from[i + kSide]));
  to[i] = __fadd_rn(__fmul_rn(0.5f, from[i]), __fmul_rn(0.125f, around));
}

}  // namespace

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 20);
  constexpr int kSteps = 10;  // each iteration
  constexpr size_t kCells = static_cast<size_t>(kSide) * kSide;
  std::vector<float> plate(kCells, 20.0f), next(kCells), got(kCells);
  // A hot edge and a cold corner.
  for (int x = 0; x < kSide; ++x) plate[x] = 100.0f;
  for (int y = kSide / 2; y < kSide; ++y) plate[y * kSide] = -30.0f;
  next = plate;
  float *a, *b;
  CUDA(cudaMalloc(&a, kCells * sizeof(float)));
  CUDA(cudaMalloc(&b, kCells * sizeof(float)));
  CUDA(cudaMemcpy(a, plate.data(), kCells * sizeof(float),
                  cudaMemcpyHostToDevice));
  const dim3 block(32, 8);
  const dim3 grid((kSide + 31) / 32, (kSide + 7) / 8);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    for (int s = 0; s < kSteps; ++s) {
      Step<<<grid, block>>>(a, b);
      std::swap(a, b);
      for (int y = 1; y + 1 < kSide; ++y) {
        for (int x = 1; x + 1 < kSide; ++x) {
          const int i = y * kSide + x;
          const float around = (plate[i - 1] + plate[i + 1]) +
                               (plate[i - kSide] + plate[i + kSide]);
          next[i] = 0.5f * plate[i] + 0.125f * around;
        }
      }
      std::swap(plate, next);
    }
    CUDA(cudaMemcpy(got.data(), a, kCells * sizeof(float),
                    cudaMemcpyDeviceToHost));
    EXPECT(std::memcmp(got.data(), plate.data(), kCells * sizeof(float)) == 0);
    digest.Add(got.data(), kCells * sizeof(float));
    Progress(it, iterations);
  }
  CUDA(cudaFree(a));
  CUDA(cudaFree(b));
  return digest.Pass();
}
