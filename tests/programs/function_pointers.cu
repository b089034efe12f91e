// Calls through pointers: a table in constant memory, pointers read by the host
// and given back, virtual functions of objects that stay between kernels, and
// a small interpreter of commands.
#include "arrays.h"

using Function = int (*)(int, int);

__device__ int Add(int a, int b) { return a + b; }
__device__ int Subtract(int a, int b) { return a - b; }
__device__ int Multiply(int a, int b) { return a * b; }
__device__ int Mix(int a, int b) { return (a ^ b) * 31 + (a & b); }
__device__ Function device_table[4] = {Add, Subtract, Multiply, Mix};

int OnHost(int which, int a, int b) {
  switch (which) {
    case 0: return a + b;
    case 1: return a - b;
    case 2: return static_cast<int>(1u * a * b);
    default: return static_cast<int>((a ^ b) * 31u + (a & b));
  }
}

struct Counter {
  int state;
  __device__ explicit Counter(int s) : state(s) {}
  __device__ virtual void Tick(int x) = 0;
};
struct Summer : Counter {
  using Counter::Counter;
  __device__ void Tick(int x) override { state += x; }
};
struct Hasher : Counter {
  int factor;
  __device__ Hasher(int s, int f) : Counter(s), factor(f) {}
  __device__ void Tick(int x) override {
    state = static_cast<int>(static_cast<unsigned>(state) * factor + x);
  }
};

__global__ void Make(Counter** counters) {
  const int i = threadIdx.x;
  if (i % 3 == 0) {
    counters[i] = new Summer(i);
  } else {
    counters[i] = new Hasher(i, i + 31);
  }
}

__global__ void Tick(Counter** counters, int* states, int x) {
  const int i = threadIdx.x;
  counters[i]->Tick(x + i);
  states[i] = counters[i]->state;
}

__global__ void Run(const unsigned char* code, int length, const int* in,
                    int* out, Function given) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  int value = in[i];
  for (int k = 0; k < length; ++k) {
    const Function f = device_table[(code[k] + i) % 4];  // lanes differ
    value = f(value, code[k]);
  }
  out[i] = given(value, i);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 256, counters_n = 48, length = 24;
  Function table[4];  // pointers of the device, as numbers of the host
  CUDA(cudaMemcpyFromSymbol(table, device_table, sizeof(table)));
  for (const Function f : table) EXPECT(f != nullptr);
  EXPECT(table[0] != table[1] && table[2] != table[3]);
  Counter** counters = Allocate<Counter*>(counters_n);
  Make<<<1, counters_n>>>(counters);
  int* states = Allocate<int>(counters_n);
  auto* code = Allocate<unsigned char>(length);
  int* in = Allocate<int>(n);
  int* out = Allocate<int>(n);
  std::vector<int> want_states(counters_n);
  for (int i = 0; i < counters_n; ++i) want_states[i] = i;
  Digest digest;
  Random random(83);
  for (int it = 0; it < iterations; ++it) {
    std::vector<unsigned char> commands(length);
    std::vector<int> host(n), want(n);
    for (auto& c : commands) c = static_cast<unsigned char>(random.Next());
    for (int& x : host) x = static_cast<int>(random.Next() % 1000);
    Upload(code, commands);
    Upload(in, host);
    Run<<<n / 64, 64>>>(code, length, in, out, table[it % 4]);
    Tick<<<1, counters_n>>>(counters, states, it);
    for (int i = 0; i < n; ++i) {
      int value = host[i];
      for (const unsigned char c : commands) {
        value = OnHost((c + i) % 4, value, c);
      }
      want[i] = OnHost(it % 4, value, i);
    }
    for (int i = 0; i < counters_n; ++i) {
      const unsigned state = static_cast<unsigned>(want_states[i]);
      want_states[i] = static_cast<int>(
          (i % 3 == 0 ? state : state * (i + 31)) + it + i);
    }
    ExpectSame(Download(out, n), want, "interpreted");
    const auto got = Download(states, counters_n);
    ExpectSame(got, want_states, "counters");
    AddAll(digest, want);
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
