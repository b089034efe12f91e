// Functions that call themselves: quicksort, Ackermann, the towers of Hanoi, and
// two that call each other.
#include <algorithm>

#include "arrays.h"

__device__ void Quicksort(int* data, int low, int high) {
  if (low >= high) return;
  const int pivot = data[(low + high) / 2];
  int i = low, j = high;
  while (i <= j) {
    while (data[i] < pivot) ++i;
    while (data[j] > pivot) --j;
    if (i <= j) {
      const int x = data[i];
      data[i++] = data[j];
      data[j--] = x;
    }
  }
  Quicksort(data, low, j);
  Quicksort(data, i, high);
}

__host__ __device__ int Ackermann(int m, int n) {
  if (m == 0) return n + 1;
  if (n == 0) return Ackermann(m - 1, 1);
  return Ackermann(m - 1, Ackermann(m, n - 1));
}

// Moves, as a number that depends on their order.
__host__ __device__ unsigned Hanoi(int discs, int from, int to,
                                   unsigned seen) {
  if (discs == 0) return seen;
  seen = Hanoi(discs - 1, from, 3 - from - to, seen);
  seen = seen * 31 + from * 3 + to;
  return Hanoi(discs - 1, 3 - from - to, to, seen);
}

__host__ __device__ bool IsEven(int n);
__host__ __device__ bool IsOdd(int n) { return n != 0 && IsEven(n - 1); }
__host__ __device__ bool IsEven(int n) { return n == 0 || IsOdd(n - 1); }

__global__ void Work(int* data, int part, int* out, int salt) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  Quicksort(data + t * part, 0, part - 1);
  out[3 * t] = Ackermann(t % 3, (t + salt) % 6);
  out[3 * t + 1] = static_cast<int>(Hanoi((t + salt) % 7, 0, 2, salt));
  out[3 * t + 2] = IsEven((t * 7 + salt) % 23);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int threads = 64, part = 40, n = threads * part;
  CUDA(cudaDeviceSetLimit(cudaLimitStackSize, 8192));
  int* data = Allocate<int>(n);
  int* out = Allocate<int>(3 * threads);
  Digest digest;
  Random random(89);
  for (int it = 0; it < iterations; ++it) {
    std::vector<int> host(n);
    for (int& x : host) x = static_cast<int>(random.Next() % 500);
    Upload(data, host);
    Work<<<2, threads / 2>>>(data, part, out, it % 1000);
    const auto got = Download(out, 3 * threads);
    for (int t = 0; t < threads; ++t) {
      std::sort(&host[t * part], &host[t * part] + part);
      const int salt = it % 1000;
      EXPECT(got[3 * t] == Ackermann(t % 3, (t + salt) % 6));
      EXPECT(got[3 * t + 1] ==
             static_cast<int>(Hanoi((t + salt) % 7, 0, 2, salt)));
      EXPECT(got[3 * t + 2] == IsEven((t * 7 + salt) % 23));
    }
    ExpectSame(Download(data, n), host, "sorted parts");
    AddAll(digest, host);
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
