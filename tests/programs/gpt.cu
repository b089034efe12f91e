// A small transformer that learns: embeddings, causal attention, layer norms,
// GELU, cross entropy, backward pass and Adam, each as plain kernels; the same
// on the processor. Both losses have to fall alike.
#include <algorithm>

#include "gpt_model.h"

namespace {

template <typename F>
__global__ void ForAll(F f, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) f(i);
}

// Runs f(0) … f(n - 1) as a kernel.
struct OnDevice {
  template <typename F>
  void operator()(int n, F f) const {
    ForAll<<<(n + 63) / 64, 64>>>(f, n);
    CUDA(cudaGetLastError());
  }
};

struct OnHost {
  template <typename F>
  void operator()(int n, F f) const {
    for (int i = 0; i < n; ++i) f(i);
  }
};

// Text to learn: a sequence with a rule.
std::vector<int> MakeTokens(Random& random) {
  std::vector<int> tokens(gpt::kBatch * (gpt::kTime + 1));
  for (int b = 0; b < gpt::kBatch; ++b) {
    int token = static_cast<int>(random.Next() % gpt::kVocabulary);
    const int step = 1 + static_cast<int>(random.Next() % 3);
    for (int t = 0; t <= gpt::kTime; ++t) {
      tokens[b * (gpt::kTime + 1) + t] = token;
      token = (token + step) % gpt::kVocabulary;
    }
  }
  return tokens;
}

}  // namespace

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  Random random(109);
  std::vector<float> start(gpt::kParameters);
  for (int i = 0; i < gpt::kParameters; ++i) {
    start[i] = gpt::IsGain(i) ? 1.0f : 0.2f * (Uniform(random) - 0.5f);
  }
  // The processor's memory and the device's, laid out alike.
  std::vector<float> host(gpt::kFloats);
  std::copy(start.begin(), start.end(), host.begin());
  float* device = Upload(host);
  int* device_tokens = Allocate<int>(gpt::kBatch * (gpt::kTime + 1));
  double first = 0, mean = 0;
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    const auto tokens = MakeTokens(random);
    Upload(device_tokens, tokens);
    gpt::Train(OnDevice(), gpt::Memory(device), device_tokens, it + 1);
    gpt::Train(OnHost(), gpt::Memory(host.data()), tokens.data(), it + 1);
    const auto losses =
        Download(gpt::Memory(device).losses, gpt::kBatch * gpt::kTime);
    double loss = 0, want = 0;
    for (int i = 0; i < gpt::kBatch * gpt::kTime; ++i) {
      loss += losses[i] / (gpt::kBatch * gpt::kTime);
      want += gpt::Memory(host.data()).losses[i] / (gpt::kBatch * gpt::kTime);
    }
    // Last bits of exp and tanh differ, and learning makes more of them.
    ExpectNear(loss, want, it < 20 ? 1e-3 : 0.2, it < 20 ? 1e-4 : 0.05, "loss",
               it);
    if (it == 0) first = mean = loss;
    mean = 0.9 * mean + 0.1 * loss;
    if (it == 60) EXPECT(mean < 0.8 * first);
    AddAll(digest, losses);
    Progress(it, iterations);
  }
  AddAll(digest, Download(device, gpt::kParameters));
  return digest.Pass();
}
