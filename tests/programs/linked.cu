// Device code of two files linked with each other (-rdc=true): functions,
// variables, constants, tables of pointers and classes from the other file.
#include "arrays.h"
#include "linked.h"

__device__ static int Helper(int x) { return x + 100; }  // not the other's

__global__ void Run(const int* in, int* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const Shape* shape = ShapeOf(i);
  out[i] = Twist(in[i]) + Deep(i % 5) + steps[i % 2](in[i]) + Helper(i) +
           shape->Area(i) + offsets[i % 4];
  delete shape;
}

int TwistOnHost(int x, const int* constants) {
  return (x ^ (x >> 3)) * 5 + constants[x & 3];
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 128;
  int* in = Allocate<int>(n);
  int* out = Allocate<int>(n);
  int want_calls = 0;
  Digest digest;
  Random random(107);
  for (int it = 0; it < iterations; ++it) {
    const int constants[4] = {3, it % 100, 4, 15};
    CUDA(cudaMemcpyToSymbol(offsets, constants, sizeof(constants)));
    std::vector<int> host(n), want(n);
    for (int& x : host) x = static_cast<int>(random.Next() % 10000);
    Upload(in, host);
    Run<<<2, n / 2>>>(in, out, n);
    for (int i = 0; i < n; ++i) {
      int deep = 1;
      for (int k = 1; k <= i % 5; ++k) deep += TwistOnHost(k, constants) % 11;
      want[i] = TwistOnHost(host[i], constants) + deep +
                (i % 2 ? host[i] * 3 + 1 : host[i] - 7) + i + 100 +
                (i % 2 ? i * i : i * 2) + constants[i % 4];
      want_calls += 1 + i % 5;
    }
    const auto got = Download(out, n);
    ExpectSame(got, want, "out");
    int seen = 0;
    CUDA(cudaMemcpyFromSymbol(&seen, calls, sizeof(seen)));
    EXPECT(seen == want_calls);
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
