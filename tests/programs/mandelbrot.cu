// The Mandelbrot set: threads of a warp that leave their loops at different
// times, in float and double; each iteration looks closer.
#include "arrays.h"

constexpr int kSize = 64, kMost = 200;

template <typename T>
__host__ __device__ int Escape(T cx, T cy) {
  T x = 0, y = 0;
  int k = 0;
  while (k < kMost && fma(x, x, y * y) < 4) {
    const T next = fma(x, x, fma(-y, y, cx));
    y = fma(2 * x, y, cy);
    x = next;
    ++k;
  }
  return k;
}

template <typename T>
__host__ __device__ int At(int i, double centre_x, double centre_y,
                           double width) {
  const T x = static_cast<T>(
      fma((i % kSize) / double(kSize) - 0.5, width, centre_x));
  const T y = static_cast<T>(
      fma((i / kSize) / double(kSize) - 0.5, width, centre_y));
  return Escape<T>(x, y);
}

__global__ void Draw(int* single, int* twice, double x, double y,
                     double width) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  single[i] = At<float>(i, x, y, width);
  twice[i] = At<double>(i, x, y, width);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = kSize * kSize;
  int* single = Allocate<int>(n);
  int* twice = Allocate<int>(n);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    const double x = -0.743643887, y = 0.131825904;
    const double width = 3.0 / (1 + it % 50);
    Draw<<<n / 128, 128>>>(single, twice, x, y, width);
    const auto got_single = Download(single, n);
    const auto got_twice = Download(twice, n);
    for (int i = 0; i < n; ++i) {
      EXPECT(got_single[i] == At<float>(i, x, y, width));
      EXPECT(got_twice[i] == At<double>(i, x, y, width));
    }
    AddAll(digest, got_single);
    AddAll(digest, got_twice);
    Progress(it, iterations);
  }
  return digest.Pass();
}
