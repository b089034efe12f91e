// What the language has: templates, structs by value, switches, virtual calls,
// recursion, pointers to locals, wide integers, inline assembler.
// golden: sm_90 sm_100 debug lineinfo nvrtc

template <int N>
struct Record {
  int values[N];
  double scale;
  char tag;
};

template <typename T, int N>
__device__ T Sum(const T (&values)[N]) {
  T sum = 0;
  for (int i = 0; i < N; ++i) sum += values[i];
  return sum;
}

__device__ __forceinline__ int Index() {
  return blockIdx.x * blockDim.x + threadIdx.x;
}

extern "C" __global__ void by_value(Record<20> record, double* out) {
  const int i = Index();
  record.values[i % 20] += i;
  out[i] = Sum(record.values) * record.scale + record.tag;
}

// 32,000 bytes of parameters.
struct Large {
  int words[7999];
};
extern "C" __global__ void large_parameter(const Large large, int n, int* out) {
  const int i = Index();
  int sum = 0;
  for (int k = i; k < n; k += 64) sum += large.words[k] * (k + 1);
  out[i] = sum;
}

extern "C" __global__ void dispatch(const int* in, int* out) {
  const int i = Index();
  int x = in[i];
  for (int round = 0; round < 4; ++round) {
    switch (x & 15) {
      case 0: x = x * 3 + 1; break;
      case 1: x ^= 0x55; break;
      case 2: x -= i; break;
      case 3: x = x << 3 | 1; break;
      case 4: x = ~x;  // falls through
      case 5: x += 7; break;
      case 6: x = x / 3; break;
      case 7: x = __popc(x) + i; break;
      case 9: x = __brev(x); break;
      case 10: x = x > 0 ? -x : x; break;
      case 11: x = x % 1000; break;
      default: x += 13; break;
    }
  }
  out[i] = x;
}

// A local variable's address is the same number in every thread.
__device__ __noinline__ void Advance(int* state, int by) {
  if (by & 1) state[by & 3] += by;
  *state = *state * 5 + state[1];
}
extern "C" __global__ void pointer_to_local(int* out) {
  const int i = Index();
  int state[4] = {i, i + 1, i + 2, i + 3};
  for (int k = 0; k < 3; ++k) Advance(state, i + k);
  out[i] = state[0] ^ state[1] ^ state[2] ^ state[3];
}

__device__ __noinline__ int Ackermann(int m, int n) {
  if (m == 0) return n + 1;
  if (n == 0) return Ackermann(m - 1, 1);
  return Ackermann(m - 1, Ackermann(m, n - 1));
}
extern "C" __global__ void recursion(int* out) {
  const int i = Index();
  out[i] = Ackermann(i % 3, i % 4);
}

struct Shape {
  __device__ explicit Shape(int size) : size_(size) {}
  __device__ virtual int Area() const = 0;
  __device__ virtual int Edges() const { return 1; }
  int size_;
};
struct Square : Shape {
  using Shape::Shape;
  __device__ int Area() const override { return size_ * size_; }
  __device__ int Edges() const override { return 4; }
};
struct Disc : Shape {
  using Shape::Shape;
  __device__ int Area() const override { return 3 * size_ * size_; }
};
extern "C" __global__ void virtual_calls(int* out) {
  const int i = Index();
  const Square square(i);
  const Disc disc(i + 1);
  const Shape* shape = &square;
  if (i % 3 == 0) shape = &disc;
  out[i] = shape->Area() * 10 + shape->Edges();
}

__device__ int Twice(int x) { return 2 * x; }
__device__ int Square1(int x) { return x * x; }
__device__ int Minus(int x) { return -x; }
__device__ int (*const kOperations[])(int) = {&Twice, &Square1, &Minus};
__constant__ int kPrimes[] = {2, 3, 5, 7, 11, 13, 17, 19};
extern "C" __global__ void function_pointers(int* out) {
  const int i = Index();
  out[i] = kOperations[i % 3](i) + kPrimes[i % 8];
}

extern "C" __global__ void wide_integers(const unsigned long long* in,
                                         unsigned long long* out) {
  const int i = Index();
  const unsigned long long a = in[2 * i];
  const unsigned long long b = in[2 * i + 1] | 1;
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  const unsigned __int128 sum = product + (static_cast<unsigned __int128>(b) << 60);
  out[6 * i] = static_cast<unsigned long long>(sum >> 64);
  out[6 * i + 1] = static_cast<unsigned long long>(sum);
  out[6 * i + 2] = a / b;
  out[6 * i + 3] = a % b;
  out[6 * i + 4] = static_cast<unsigned long long>(
      static_cast<long long>(a) / static_cast<long long>(b >> 40 | 3));
  out[6 * i + 5] = static_cast<unsigned long long>(
      static_cast<long long>(a) % static_cast<long long>(b >> 40 | 3));
}

// Names of one block of assembler are its own.
__device__ int Assembler(int a, int b) {
  int d;
  asm volatile(
      "{\n\t.reg .pred p;\n\t.reg .b32 t;\n\t"
      "setp.gt.s32 p, %1, %2;\n\t"
      "{ .reg .b32 t; mul.lo.s32 t, %2, 3; mov.b32 %0, t; }\n\t"
      "sub.s32 t, %1, %2;\n\t@p add.s32 %0, %0, t;\n\t}"
      : "=&r"(d)
      : "r"(a), "r"(b));
  return d;
}
extern "C" __global__ void assembler(volatile int* in, int* out) {
  const int i = Index();
  out[i] = Assembler(in[i], in[i] / 2) + Assembler(i, 10);
}

struct Vertex {
  float x, y, z, w;
};
// Not all of what is loaded is used.
extern "C" __global__ void parts(const float4* in, const Vertex* more,
                                 float* out) {
  const int i = Index();
  const float4 v = in[i];
  out[i] = v.x + v.w + more[i].y;
}

__device__ unsigned counter = 40;
__device__ unsigned* const kCounter = &counter;
extern "C" __global__ void count() { atomicInc(kCounter, 1000); }
