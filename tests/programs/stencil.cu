// Two-dimensional stencil over pitched memory, ping-pong between two buffers,
// with cudaMemcpy2D and cudaMemset2D.
#include <utility>
#include <vector>

#include "check.h"

__global__ void Step(const char* from, char* to, size_t pitch, int w, int h) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= w || y >= h) return;
  const auto at = [&](int cx, int cy) {
    cx = min(max(cx, 0), w - 1);
    cy = min(max(cy, 0), h - 1);
    return reinterpret_cast<const int*>(from + cy * pitch)[cx];
  };
  reinterpret_cast<int*>(to + y * pitch)[x] =
      (4 * at(x, y) + at(x - 1, y) + at(x + 1, y) + at(x, y - 1) +
       at(x, y + 1)) >> 3;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 4);
  const int w = 131, h = 67;
  std::vector<int> grid(w * h), next(w * h), got(w * h);
  Random random(5);
  for (int& x : grid) x = static_cast<int>(random.Next() % 100000);
  char *a, *b;
  size_t pitch, pitch_b;
  CUDA(cudaMallocPitch(&a, &pitch, w * sizeof(int), h));
  CUDA(cudaMallocPitch(&b, &pitch_b, w * sizeof(int), h));
  EXPECT(pitch == pitch_b && pitch >= w * sizeof(int));
  CUDA(cudaMemset2D(b, pitch, 0xee, w * sizeof(int), h));
  CUDA(cudaMemcpy2D(a, pitch, grid.data(), w * sizeof(int), w * sizeof(int), h,
                    cudaMemcpyHostToDevice));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    for (int s = 0; s < 4; ++s) {
      Step<<<dim3((w + 15) / 16, (h + 7) / 8), dim3(16, 8)>>>(a, b, pitch, w,
                                                              h);
      std::swap(a, b);
      for (int y = 0; y < h; ++y) {
        for (int x = 0; x < w; ++x) {
          const auto at = [&](int cx, int cy) {
            cx = cx < 0 ? 0 : cx >= w ? w - 1 : cx;
            cy = cy < 0 ? 0 : cy >= h ? h - 1 : cy;
            return grid[cy * w + cx];
          };
          next[y * w + x] = (4 * at(x, y) + at(x - 1, y) + at(x + 1, y) +
                             at(x, y - 1) + at(x, y + 1)) >> 3;
        }
      }
      std::swap(grid, next);
    }
    CUDA(cudaMemcpy2D(got.data(), w * sizeof(int), a, pitch, w * sizeof(int), h,
                      cudaMemcpyDeviceToHost));
    EXPECT(got == grid);
    digest.Add(got.data(), got.size() * sizeof(int));
    Progress(it, iterations);
  }
  return digest.Pass();
}
