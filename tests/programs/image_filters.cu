// Filters of a grey picture: box by running sums, Gaussian in two passes with
// constant memory, Sobel, median of nine by a sorting network.
#include <algorithm>

#include "arrays.h"

constexpr int kW = 96, kH = 64, kN = kW * kH, kRadius = 3;

__constant__ float weights[2 * kRadius + 1];

__host__ __device__ int Clamp(int i, int n) {
  return i < 0 ? 0 : i >= n ? n - 1 : i;
}
__host__ __device__ int At(int x, int y) {
  return Clamp(y, kH) * kW + Clamp(x, kW);
}

__global__ void BoxRows(const unsigned char* in, int* out) {
  const int y = blockIdx.x * blockDim.x + threadIdx.x;
  if (y >= kH) return;
  int sum = 0;
  for (int x = -kRadius; x <= kRadius; ++x) sum += in[At(x, y)];
  for (int x = 0; x < kW; ++x) {
    out[y * kW + x] = sum;
    sum += in[At(x + kRadius + 1, y)] - in[At(x - kRadius, y)];
  }
}

__global__ void Gauss(const float* in, float* out, int dx, int dy) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  float sum = 0;
  for (int k = -kRadius; k <= kRadius; ++k) {
    sum = fmaf(weights[k + kRadius], in[At(x + k * dx, y + k * dy)], sum);
  }
  out[y * kW + x] = sum;
}

__host__ __device__ int SobelAt(const unsigned char* in, int x, int y) {
  const int gx = in[At(x + 1, y - 1)] + 2 * in[At(x + 1, y)] +
                 in[At(x + 1, y + 1)] - in[At(x - 1, y - 1)] -
                 2 * in[At(x - 1, y)] - in[At(x - 1, y + 1)];
  const int gy = in[At(x - 1, y + 1)] + 2 * in[At(x, y + 1)] +
                 in[At(x + 1, y + 1)] - in[At(x - 1, y - 1)] -
                 2 * in[At(x, y - 1)] - in[At(x + 1, y - 1)];
  return (gx < 0 ? -gx : gx) + (gy < 0 ? -gy : gy);
}

// With its surroundings in shared memory.
__global__ void SobelAndMedian(const unsigned char* in, int* edges,
                               unsigned char* median) {
  __shared__ unsigned char tile[10][34];
  const int x0 = blockIdx.x * 32, y0 = blockIdx.y * 8;
  const int t = threadIdx.y * 32 + threadIdx.x;
  for (int i = t; i < 340; i += 256) {
    tile[i / 34][i % 34] = in[At(x0 + i % 34 - 1, y0 + i / 34 - 1)];
  }
  __syncthreads();
  unsigned char v[9];
  for (int k = 0; k < 9; ++k) {
    v[k] = tile[threadIdx.y + k / 3][threadIdx.x + k % 3];
  }
  const int x = x0 + threadIdx.x, y = y0 + threadIdx.y;
  edges[y * kW + x] = SobelAt(in, x, y);
  for (int round = 0; round < 9; ++round) {  // odd-even transposition
    for (int k = round % 2; k + 1 < 9; k += 2) {
      const unsigned char low = min(v[k], v[k + 1]);
      v[k + 1] = max(v[k], v[k + 1]);
      v[k] = low;
    }
  }
  median[y * kW + x] = v[4];
}

std::vector<float> GaussOnHost(const std::vector<float>& in, const float* w,
                               int dx, int dy) {
  std::vector<float> out(kN);
  for (int i = 0; i < kN; ++i) {
    float sum = 0;
    for (int k = -kRadius; k <= kRadius; ++k) {
      sum = std::fma(w[k + kRadius], in[At(i % kW + k * dx, i / kW + k * dy)],
                     sum);
    }
    out[i] = sum;
  }
  return out;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const dim3 grid(kW / 32, kH / 8), block(32, 8);
  auto* picture = Allocate<unsigned char>(kN);
  auto* median = Allocate<unsigned char>(kN);
  int* sums = Allocate<int>(kN);
  int* edges = Allocate<int>(kN);
  float* smooth = Allocate<float>(kN);
  float* half = Allocate<float>(kN);
  Random random(61);
  std::vector<unsigned char> host(kN);
  for (auto& p : host) p = static_cast<unsigned char>(random.Next());
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Upload(picture, host);
    float w[2 * kRadius + 1];
    for (int k = 0; k <= 2 * kRadius; ++k) {
      w[k] = std::exp(-0.25f * (k - kRadius) * (k - kRadius)) / (3 + it % 2);
    }
    CUDA(cudaMemcpyToSymbol(weights, w, sizeof(w)));
    std::vector<float> wide(host.begin(), host.end());
    Upload(smooth, wide);
    BoxRows<<<2, 32>>>(picture, sums);
    Gauss<<<grid, block>>>(smooth, half, 1, 0);
    Gauss<<<grid, block>>>(half, smooth, 0, 1);
    SobelAndMedian<<<grid, block>>>(picture, edges, median);

    std::vector<int> want_sums(kN), want_edges(kN);
    std::vector<unsigned char> want_median(kN);
    for (int i = 0; i < kN; ++i) {
      const int x = i % kW, y = i / kW;
      for (int k = -kRadius; k <= kRadius; ++k) {
        want_sums[i] += host[At(x + k, y)];
      }
      want_edges[i] = SobelAt(host.data(), x, y);
      unsigned char v[9];
      for (int k = 0; k < 9; ++k) v[k] = host[At(x + k % 3 - 1, y + k / 3 - 1)];
      std::sort(v, v + 9);
      want_median[i] = v[4];
    }
    ExpectSame(Download(sums, kN), want_sums, "box");
    ExpectSame(Download(edges, kN), want_edges, "sobel");
    const auto got_median = Download(median, kN);
    ExpectSame(got_median, want_median, "median");
    const auto got = Download(smooth, kN);
    ExpectSame(got, GaussOnHost(GaussOnHost(wide, w, 1, 0), w, 0, 1), "gauss");
    AddAll(digest, got);
    AddAll(digest, want_edges);
    // The next picture: the median with some noise.
    for (int i = 0; i < kN; ++i) {
      host[i] = random.Next() % 5 ? got_median[i]
                                  : static_cast<unsigned char>(random.Next());
    }
    Progress(it, iterations);
  }
  return digest.Pass();
}
