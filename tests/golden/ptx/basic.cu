// The kernels that every CUDA program has a relative of.
// golden: sm_75 sm_90 sm_100 debug

extern "C" __global__ void vadd(const float* a, const float* b, float* c,
                                int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) c[i] = a[i] + b[i];
}

extern "C" __global__ void saxpy(float k, const float* x, float* y, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n;
       i += gridDim.x * blockDim.x) {
    y[i] = k * x[i] + y[i];
  }
}

// C = A * B, n x n, n a multiple of 16.
extern "C" __global__ void matmul(const float* A, const float* B, float* C,
                                  int n) {
  __shared__ float a[16][16];
  __shared__ float b[16][16];
  const int x = threadIdx.x;
  const int y = threadIdx.y;
  const int row = blockIdx.y * 16 + y;
  const int col = blockIdx.x * 16 + x;
  float sum = 0;
  for (int t = 0; t < n; t += 16) {
    a[y][x] = A[row * n + t + x];
    b[y][x] = B[(t + y) * n + col];
    __syncthreads();
    for (int k = 0; k < 16; ++k) sum += a[y][k] * b[k][x];
    __syncthreads();
  }
  C[row * n + col] = sum;
}

// Sum of a block's values, by a tree in dynamic shared memory.
extern "C" __global__ void block_sum(const int* in, int* out, int n) {
  extern __shared__ int part[];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  part[threadIdx.x] = i < n ? in[i] : 0;
  __syncthreads();
  for (int step = blockDim.x / 2; step > 0; step /= 2) {
    if (threadIdx.x < step) part[threadIdx.x] += part[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = part[0];
}

extern "C" __global__ void histogram(const unsigned char* in, unsigned* out,
                                     int n) {
  __shared__ unsigned count[256];
  count[threadIdx.x] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n;
       i += gridDim.x * blockDim.x) {
    atomicAdd(&count[in[i]], 1);
  }
  __syncthreads();
  atomicAdd(&out[threadIdx.x], count[threadIdx.x]);
}
