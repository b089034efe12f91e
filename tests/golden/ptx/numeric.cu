// Mathematics with slow paths, exact on the host.
// golden: sm_90 sm_100

__device__ __forceinline__ int Index() {
  return blockIdx.x * blockDim.x + threadIdx.x;
}

extern "C" __global__ void divide(const double* in, double* out) {
  const int i = Index();
  const double a = in[2 * i];
  const double b = in[2 * i + 1];
  out[4 * i] = a / b;
  out[4 * i + 1] = sqrt(fabs(a));
  out[4 * i + 2] = fma(a, b, -a);
  out[4 * i + 3] = fmod(a, b);
}

extern "C" __global__ void divide_single(const float* in, float* out) {
  const int i = Index();
  const float a = in[2 * i];
  const float b = in[2 * i + 1];
  out[4 * i] = a / b;
  out[4 * i + 1] = sqrtf(fabsf(a));
  out[4 * i + 2] = __frcp_rn(b);
  out[4 * i + 3] = rintf(a) + truncf(b);
}

// Large arguments take the slow path of the reduction.
extern "C" __global__ void functions(const double* in, double* out) {
  const int i = Index();
  const double x = in[i];
  out[6 * i] = sin(x);
  out[6 * i + 1] = exp(x * 1e-3);
  out[6 * i + 2] = log(fabs(x) + 0.5);
  out[6 * i + 3] = pow(fabs(x), 0.37);
  out[6 * i + 4] = static_cast<double>(sinf(static_cast<float>(x)));
  out[6 * i + 5] = static_cast<double>(expf(static_cast<float>(x) * 1e-4f));
}

extern "C" __global__ void conversions(const double* in, long long* out) {
  const int i = Index();
  const double x = in[i];
  out[6 * i] = static_cast<long long>(x);
  out[6 * i + 1] = __double2int_rn(x);
  out[6 * i + 2] = __double2uint_ru(x);
  out[6 * i + 3] = __float2int_rd(static_cast<float>(x));
  out[6 * i + 4] = __double_as_longlong(static_cast<double>(llrint(x)));
  out[6 * i + 5] = static_cast<long long>(__double2float_rz(x));
}
