// Kernels whose layouts and resources fatbin_test.cc knows.
// Regenerate the files beside this one with ./make.sh (nvcc 13.0.88).
struct S {
  char a;
  double* p;
  short s;
};
struct Big {
  int v[700];
};
__device__ int counter;
__constant__ float coeff[16];

__global__ void vadd(const float* a, const float* b, float* c, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) c[i] = a[i] + b[i];
}
__global__ void mixed(char c, short s, long long l, float3 f, S st, int* out) {
  __shared__ int sh[100];
  sh[threadIdx.x] = c + s;
  __syncthreads();
  out[threadIdx.x] = sh[99 - threadIdx.x] + (int)l + (int)f.x +
                     (int)st.p[0] + st.s + st.a + (int)coeff[s % 16];
}
__global__ void noparams() { counter = 7; }
__global__ void __launch_bounds__(256) bounded(int* a) { a[threadIdx.x] = 1; }
__global__ void stackful(int* a, int k) {
  volatile int l[64];
  for (int i = 0; i < 64; i++) l[(i * k) % 64] = i;
  a[0] = l[k % 64];
}
__device__ __noinline__ int helper(int a) { return a * a + 3; }
__global__ void calls(int* a) { a[0] = helper(a[1]); }
__global__ void big(Big b, int* o) { o[0] = b.v[o[1]]; }
