// Fast Fourier transforms without bit reversal (Stockham), radix 2 and radix 4,
// against the definition; forth and back gives the input.
#include "arrays.h"

constexpr int kSize = 1024;
constexpr double kPi = 3.14159265358979323846;

__device__ float2 Times(float2 a, float2 b) {
  return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}
__device__ float2 Plus(float2 a, float2 b) {
  return make_float2(a.x + b.x, a.y + b.y);
}
__device__ float2 Minus(float2 a, float2 b) {
  return make_float2(a.x - b.x, a.y - b.y);
}
__device__ float2 Root(float turns) {
  float s, c;
  sincospif(2 * turns, &s, &c);
  return make_float2(c, s);
}

// One pass: `done` is the length of the transforms so far; sign -1 is forward.
__global__ void Pass2(const float2* in, float2* out, int done, float sign) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  const int k = t % done;
  const float2 a = in[t];
  const float2 b = Times(in[t + kSize / 2], Root(sign * k / (2 * done)));
  const int to = (t - k) * 2 + k;
  out[to] = Plus(a, b);
  out[to + done] = Minus(a, b);
}

__global__ void Pass4(const float2* in, float2* out, int done, float sign) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  const int k = t % done;
  float2 v[4];
  for (int m = 0; m < 4; ++m) {
    v[m] = Times(in[t + m * (kSize / 4)], Root(sign * m * k / (4 * done)));
  }
  const float2 s02 = Plus(v[0], v[2]), d02 = Minus(v[0], v[2]);
  const float2 s13 = Plus(v[1], v[3]), d13 = Minus(v[1], v[3]);
  const float2 turned = make_float2(-sign * d13.y, sign * d13.x);
  const int to = (t - k) * 4 + k;
  out[to] = Plus(s02, s13);
  out[to + done] = Plus(d02, turned);
  out[to + 2 * done] = Minus(s02, s13);
  out[to + 3 * done] = Minus(d02, turned);
}

__global__ void Scale(float2* data, float by) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  data[i].x *= by;
  data[i].y *= by;
}

// Transforms `data`, using `spare`; the result is where `data` points after.
void Transform(float2*& data, float2*& spare, int radix, float sign) {
  for (int done = 1; done < kSize; done *= radix) {
    if (radix == 2) {
      Pass2<<<kSize / 2 / 128, 128>>>(data, spare, done, sign);
    } else {
      Pass4<<<kSize / 4 / 128, 128>>>(data, spare, done, sign);
    }
    std::swap(data, spare);
  }
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  float2* data = Allocate<float2>(kSize);
  float2* spare = Allocate<float2>(kSize);
  std::vector<double> cosine(kSize), sine(kSize);
  for (int i = 0; i < kSize; ++i) {
    cosine[i] = std::cos(2 * kPi * i / kSize);
    sine[i] = -std::sin(2 * kPi * i / kSize);
  }
  Digest digest;
  Random random(37);
  for (int it = 0; it < iterations; ++it) {
    std::vector<float2> in(kSize);
    for (float2& x : in) x = make_float2(Uniform(random), Uniform(random));
    Upload(data, in);
    Transform(data, spare, it % 2 ? 4 : 2, -1);
    const auto spectrum = Download(data, kSize);
    for (int k = it % 16; k < kSize; k += 16) {  // others at other times
      double re = 0, im = 0;
      for (int i = 0; i < kSize; ++i) {
        const int at = static_cast<int>(1ll * i * k % kSize);
        re += in[i].x * cosine[at] - in[i].y * sine[at];
        im += in[i].x * sine[at] + in[i].y * cosine[at];
      }
      ExpectNear(spectrum[k].x, re, 0, 1e-3, "re", k);
      ExpectNear(spectrum[k].y, im, 0, 1e-3, "im", k);
    }
    Transform(data, spare, it % 2 ? 2 : 4, 1);
    Scale<<<kSize / 128, 128>>>(data, 1.0f / kSize);
    const auto back = Download(data, kSize);
    for (int i = 0; i < kSize; ++i) {
      ExpectNear(back[i].x, in[i].x, 0, 1e-5, "re back", i);
      ExpectNear(back[i].y, in[i].y, 0, 1e-5, "im back", i);
    }
    AddAll(digest, spectrum);
    AddAll(digest, back);
    Progress(it, iterations);
  }
  return digest.Pass();
}
