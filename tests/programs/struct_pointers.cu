// Device pointers inside structs that are passed by value, nested, in arrays,
// and written through.
#include <vector>

#include "check.h"

struct View {
  int* data;
  int size;
};
struct Task {
  char tag;
  View in[2];
  struct {
    short scale;
    View out;
  } result;
  double bias;
};
struct Large {
  int table[500];
  int* out;
};

__global__ void Run(Task task) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= task.result.out.size) return;
  task.result.out.data[i] =
      task.in[0].data[i % task.in[0].size] * task.result.scale +
      task.in[1].data[i % task.in[1].size] + static_cast<int>(task.bias) +
      task.tag;
}

__global__ void UseLarge(Large large, int k) {
  const int i = threadIdx.x;
  large.out[i] = large.table[(i * k) % 500];
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  const int n = 5000;
  std::vector<int> a(n), b(70), got(n), want(n);
  Random random(3);
  for (int& x : a) x = static_cast<int>(random.Next() % 1000);
  for (int& x : b) x = static_cast<int>(random.Next() % 1000);
  int *da, *db, *dc;
  CUDA(cudaMalloc(&da, n * sizeof(int)));
  CUDA(cudaMalloc(&db, 70 * sizeof(int)));
  CUDA(cudaMalloc(&dc, n * sizeof(int)));
  CUDA(cudaMemcpy(da, a.data(), n * sizeof(int), cudaMemcpyHostToDevice));
  CUDA(cudaMemcpy(db, b.data(), 70 * sizeof(int), cudaMemcpyHostToDevice));
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Task task = {};
    task.tag = static_cast<char>(it % 100);
    task.in[0] = {da, n};
    task.in[1] = {db, 70};
    task.result.scale = static_cast<short>(it % 9 - 4);
    task.result.out = {dc, n};
    task.bias = it + 0.5;
    Run<<<(n + 255) / 256, 256>>>(task);
    CUDA(cudaMemcpy(got.data(), dc, n * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; ++i) {
      want[i] = a[i] * task.result.scale + b[i % 70] + it + task.tag;
    }
    EXPECT(got == want);
    digest.Add(got.data(), n * sizeof(int));
    Large large;
    for (int i = 0; i < 500; ++i) large.table[i] = i * i + it;
    large.out = dc + 100;
    UseLarge<<<1, 256>>>(large, 3 + it % 7);
    CUDA(cudaMemcpy(got.data(), dc + 100, 256 * sizeof(int),
                    cudaMemcpyDeviceToHost));
    for (int i = 0; i < 256; ++i) {
      EXPECT(got[i] == large.table[(i * (3 + it % 7)) % 500]);
    }
    Progress(it, iterations);
  }
  return digest.Pass();
}
