// The approximate functions, by name and by --use_fast_math: within the errors
// that CUDA's programming guide gives for them, and subnormals are zero.
#include "arrays.h"

constexpr int kResults = 14;

__global__ void Run(const float* in, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float x = in[2 * i], y = in[2 * i + 1];
  const float positive = fabsf(x) + 0.125f;
  float* o = out + i * kResults;
  o[0] = sinf(x);
  o[1] = cosf(x);
  o[2] = tanf(x / 4);
  o[3] = expf(x);
  o[4] = exp10f(x);
  o[5] = logf(positive);
  o[6] = log2f(positive);
  o[7] = powf(positive, y);
  o[8] = x / y;
  o[9] = sqrtf(positive);
  o[10] = rsqrtf(positive);
  o[11] = __fdividef(x, y) + __saturatef(x);
  o[12] = tanhf(x);
  o[13] = x * 1e-30f * 1e-10f;  // a subnormal
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 512;
  float* in = Allocate<float>(2 * n);
  float* out = Allocate<float>(kResults * n);
  Digest digest;
  Random random(103);
  for (int it = 0; it < iterations; ++it) {
    std::vector<float> host(2 * n);
    for (float& x : host) x = Uniform(random) * 6 - 3;
    for (int i = 0; i < n; ++i) host[2 * i + 1] += host[2 * i + 1] < 0 ? -1 : 1;
    Upload(in, host);
    Run<<<n / 128, 128>>>(in, out, n);
    const auto got = Download(out, kResults * n);
    for (int i = 0; i < n; ++i) {
      const double x = host[2 * i], y = host[2 * i + 1];
      const double positive = std::fabs(x) + 0.125;
      const double want[kResults] = {
          std::sin(x),
          std::cos(x),
          std::tan(x / 4),
          std::exp(x),
          std::pow(10.0, x),
          std::log(positive),
          std::log2(positive),
          std::pow(positive, y),
          x / y,
          std::sqrt(positive),
          1 / std::sqrt(positive),
          x / y + std::fmin(std::fmax(x, 0.0), 1.0),
          std::tanh(x),
          0};
      for (int k = 0; k < kResults; ++k) {
        ExpectNear(got[i * kResults + k], want[k], 1e-5, 1e-6, "function", k);
      }
      EXPECT(got[i * kResults + 13] == 0);
    }
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
