// printf, malloc and free in kernels, a virtual call, recursion and assert-free
// error reporting through memory.
#include <vector>

#include "check.h"

struct Shape {
  __device__ virtual int Area() const = 0;
  __device__ virtual ~Shape() {}
};
struct Square : Shape {
  int side;
  __device__ explicit Square(int s) : side(s) {}
  __device__ int Area() const override { return side * side; }
};
struct Slab : Shape {
  int w, h;
  __device__ Slab(int a, int b) : w(a), h(b) {}
  __device__ int Area() const override { return w * h; }
};

__device__ int Fibonacci(int n) {
  return n < 2 ? n : Fibonacci(n - 1) + Fibonacci(n - 2);
}

__global__ void MakeShapes(Shape** shapes, int n) {
  const int i = threadIdx.x;
  if (i >= n) return;
  if (i % 2) {
    shapes[i] = new Slab(i, i + 1);
  } else {
    shapes[i] = new Square(i);
  }
}

__global__ void Measure(Shape** shapes, int* areas, int n) {
  const int i = threadIdx.x;
  if (i >= n) return;
  areas[i] = shapes[i]->Area() + Fibonacci(i % 8);
  delete shapes[i];
  if (i == 3) printf("device says %d of %s\n", areas[i], "shape 3");
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 64;
  Shape** shapes;
  int* areas;
  CUDA(cudaMalloc(&shapes, n * sizeof(Shape*)));
  CUDA(cudaMalloc(&areas, n * sizeof(int)));
  const int fibonacci[8] = {0, 1, 1, 2, 3, 5, 8, 13};
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    MakeShapes<<<1, n>>>(shapes, n);
    Measure<<<1, n>>>(shapes, areas, n);
    CUDA(cudaDeviceSynchronize());
    int got[n];
    CUDA(cudaMemcpy(got, areas, sizeof(got), cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; ++i) {
      EXPECT(got[i] == (i % 2 ? i * (i + 1) : i * i) + fibonacci[i % 8]);
    }
    digest.Add(got, sizeof(got));
    Progress(it, iterations);
  }
  return digest.Pass();
}
