// printf, malloc and free in kernels, a virtual call, recursion. What kernels
// print lies between what the host prints: every line "device: X" of the formats
// is followed, further down, by the host's own "host: X" (output_test.py
// compares them).
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

// Every conversion that CUDA documents, and 32 arguments.
#define PRINT_FORMATS(who, i)                                                  \
  do {                                                                         \
    printf(who "%d|%5d|%-5d|%05d|%+d|% d|%i\n", i, i, i, i, i, i, -i);         \
    printf(who "%u %o %x %X %#x %#o\n", 3000000000u + i, i, 48879, 48879, i,   \
           i);                                                                 \
    printf(who "%lld %llu %llx %ld %lu\n", -5000000000ll - i, 18000000000ull,  \
           0xfeedfacecafebeefull, -7l * i, 7ul);                               \
    printf(who "%hd %hhd %hu %hhu\n", i, i, i, i);                             \
    printf(who "%f|%.2f|%10.3f|%-10.1f|%+.0f\n", 1.5 * i, 2.345, 3.14159,      \
           -2.5, 9.0);                                                         \
    printf(who "%e %E %.3e %g %G %.10g %a\n", 12345.678 * i, 1e-10, 1e100,     \
           0.0001, 1e20, 2.0 / 3, 1.0);                                        \
    printf(who "%c%c%5c|%-3c|\n", 'a' + i % 26, 'z', 'm', 'n');                \
    printf(who "%s|%10s|%-10s|%.3s\n", "text", "right", "left", "prefix");     \
    printf(who "%p %p\n", (void*)0x7f00dead0000, (void*)(16ull * (i + 1)));    \
    printf(who "100%% %*d|%-*d|%.*f|%*.*f\n", 7, i, 6, i, 2, 3.14159, 9, 3,    \
           2.71828);                                                           \
    printf(who "%f %f %f %e\n", 1.0 / 0.0, -1.0 / 0.0, 1e308, 4.9e-324);       \
    printf(who "%d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d "  \
               "%d %d %d %d %d %d %d %d %d %d %d %d\n",                        \
           i, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,  \
           20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32);                \
    printf(who "a line %s\n", "in one call, another\n" who "a third");          \
  } while (0)

__global__ void PrintFormats(int i) { PRINT_FORMATS("device: ", i); }

// Blocks that print in turn, so that the text is the same every time.
__device__ unsigned next_block;
__global__ void PrintInTurn(int iteration) {
  if (threadIdx.x == 0) {
    while (atomicAdd(&next_block, 0u) != blockIdx.x) {
    }
  }
  __syncthreads();
  for (unsigned t = 0; t < blockDim.x; ++t) {
    if (t == threadIdx.x) {
      printf("block %u thread %u of iteration %d\n", blockIdx.x, t, iteration);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    __threadfence();
    atomicExch(&next_block, (blockIdx.x + 1) % gridDim.x);
  }
}

// Text that waits for calls to come, of which none shows it yet.
__global__ void PrintPart(int part) { printf("part %d, ", part); }

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
    std::printf("formats\n");
    PrintFormats<<<1, 1>>>(it);
    CUDA(cudaDeviceSynchronize());
    PRINT_FORMATS("host: ", it);
    cudaEvent_t event;
    CUDA(cudaEventCreate(&event));
    PrintInTurn<<<24, 4>>>(it);
    CUDA(cudaEventRecord(event));
    CUDA(cudaEventSynchronize(event));
    std::printf("the host again\n");
    CUDA(cudaEventDestroy(event));
    for (int part = 0; part < 4; ++part) {
      PrintPart<<<1, 1>>>(part);
      CUDA(cudaMemsetAsync(areas, part, n * sizeof(int)));
    }
    // From pageable memory: waits for the stream.
    CUDA(cudaMemcpy(areas, got, sizeof(got), cudaMemcpyHostToDevice));
    std::printf("that was all\n");
    Progress(it, iterations);
  }
  return digest.Pass();
}
