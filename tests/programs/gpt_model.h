// The transformer of gpt.cu: what each element of each tensor is, for a device
// and for a processor alike. `For` runs f(0) … f(n - 1), all at once or one
// after the other: no f reads what another of the same call writes.
#ifndef POS_TESTS_PROGRAMS_GPT_MODEL_H_
#define POS_TESTS_PROGRAMS_GPT_MODEL_H_

#include "arrays.h"

namespace gpt {

constexpr int kVocabulary = 16, kTime = 8, kBatch = 4, kDim = 16, kHidden = 32;
constexpr int kHeads = 2, kHead = kDim / kHeads, kLayers = 2;
constexpr int kRows = kBatch * kTime;

// Parameters of a layer: gains of the norms, then matrices [in][out].
constexpr int kQkv = 2 * kDim, kOut = kQkv + kDim * 3 * kDim;
constexpr int kUp = kOut + kDim * kDim, kDown = kUp + kDim * kHidden;
constexpr int kLayer = kDown + kHidden * kDim;
// All: token and position embeddings, layers, the last gain, the head.
constexpr int kPosition = kVocabulary * kDim;
constexpr int kFirst = kPosition + kTime * kDim;
constexpr int kLast = kFirst + kLayers * kLayer;
constexpr int kLogits = kLast + kDim;
constexpr int kParameters = kLogits + kDim * kVocabulary;

inline bool IsGain(int i) {
  if (i >= kLast && i < kLogits) return true;
  return i >= kFirst && i < kLast && (i - kFirst) % kLayer < 2 * kDim;
}

// Kept from the forward pass for the backward pass, per layer.
struct Saved {
  float *in, *norm1, *qkv, *weights, *mixed, *middle, *norm2, *up, *active;
};

struct Memory {
  float *parameters, *gradients, *moment1, *moment2, *losses, *x, *dx, *out;
  float *last_norm, *logits, *a, *b, *c;
  Saved saved[kLayers];

  explicit Memory(float* at) {
    auto take = [&at](int n) {
      float* const mine = at;
      at += n;
      return mine;
    };
    parameters = take(kParameters);
    gradients = take(kParameters);
    moment1 = take(kParameters);
    moment2 = take(kParameters);
    losses = take(kRows);
    x = take(kRows * kDim);
    dx = take(kRows * kDim);
    out = take(kRows * kDim);
    last_norm = take(kRows * kDim);
    logits = take(kRows * kVocabulary);
    a = take(kRows * 3 * kDim);
    b = take(kRows * kHidden);
    c = take(kRows * kHeads * kTime);
    for (Saved& s : saved) {
      s.in = take(kRows * kDim);
      s.norm1 = take(kRows * kDim);
      s.qkv = take(kRows * 3 * kDim);
      s.weights = take(kRows * kHeads * kTime);
      s.mixed = take(kRows * kDim);
      s.middle = take(kRows * kDim);
      s.norm2 = take(kRows * kDim);
      s.up = take(kRows * kHidden);
      s.active = take(kRows * kHidden);
    }
  }
};
constexpr int kFloats =
    4 * kParameters +
    kRows * (1 + 4 * kDim + kVocabulary + 3 * kDim + kHidden + kHeads * kTime) +
    kLayers * kRows * (8 * kDim + kHeads * kTime + 2 * kHidden);

// y[r][o] = sum over i of x[r][i] * w[i][o] (+ y when `add`)
template <typename For>
void Multiply(For run, const float* x, const float* w, float* y, int in,
              int out, bool add) {
  run(kRows * out, [=] __host__ __device__(int i) {
    float sum = add ? y[i] : 0.0f;
    for (int k = 0; k < in; ++k) {
      sum = fmaf(x[i / out * in + k], w[k * out + i % out], sum);
    }
    y[i] = sum;
  });
}

// dx = dy * w transposed; dw = x transposed * dy
template <typename For>
void MultiplyBack(For run, const float* x, const float* w, const float* dy,
                  float* dx, float* dw, int in, int out) {
  run(kRows * in, [=] __host__ __device__(int i) {
    float sum = 0;
    for (int k = 0; k < out; ++k) {
      sum = fmaf(dy[i / in * out + k], w[i % in * out + k], sum);
    }
    dx[i] = sum;
  });
  run(in * out, [=] __host__ __device__(int i) {
    float sum = 0;
    for (int r = 0; r < kRows; ++r) {
      sum = fmaf(x[r * in + i / out], dy[r * out + i % out], sum);
    }
    dw[i] = sum;
  });
}

__host__ __device__ inline float InverseNorm(const float* row) {
  float sum = 1e-5f;
  for (int k = 0; k < kDim; ++k) sum = fmaf(row[k], row[k], sum);
  return 1 / sqrtf(sum / kDim);
}

// Root-mean-square norm with gains.
template <typename For>
void Norm(For run, const float* x, const float* gain, float* y) {
  run(kRows, [=] __host__ __device__(int r) {
    const float scale = InverseNorm(x + r * kDim);
    for (int k = 0; k < kDim; ++k) {
      y[r * kDim + k] = x[r * kDim + k] * scale * gain[k];
    }
  });
}

// dx gets the gradient added to it.
template <typename For>
void NormBack(For run, const float* x, const float* gain, const float* dy,
              float* dx, float* dgain) {
  run(kDim, [=] __host__ __device__(int k) {
    float sum = 0;
    for (int r = 0; r < kRows; ++r) {
      const int at = r * kDim + k;
      sum = fmaf(dy[at] * x[at], InverseNorm(x + r * kDim), sum);
    }
    dgain[k] = sum;
  });
  run(kRows, [=] __host__ __device__(int r) {
    const float scale = InverseNorm(x + r * kDim);
    float dot = 0;
    for (int k = 0; k < kDim; ++k) {
      dot = fmaf(dy[r * kDim + k] * gain[k], x[r * kDim + k], dot);
    }
    for (int k = 0; k < kDim; ++k) {
      const int at = r * kDim + k;
      dx[at] += scale * (dy[at] * gain[k] - x[at] * dot * scale * scale / kDim);
    }
  });
}

// For each row and head: softmax over the rows before, then their values.
template <typename For>
void Attend(For run, const Saved& s) {
  const float* qkv = s.qkv;
  float *weights = s.weights, *mixed = s.mixed;
  run(kRows * kHeads, [=] __host__ __device__(int i) {
    const int r = i / kHeads, h = i % kHeads, t = r % kTime, base = r - t;
    const float* q = qkv + r * 3 * kDim + h * kHead;
    float* p = weights + i * kTime;
    float most = -1e30f, sum = 0;
    for (int u = 0; u <= t; ++u) {
      const float* k = qkv + (base + u) * 3 * kDim + kDim + h * kHead;
      float dot = 0;
      for (int d = 0; d < kHead; ++d) dot = fmaf(q[d], k[d], dot);
      p[u] = dot / sqrtf(static_cast<float>(kHead));
      most = fmaxf(most, p[u]);
    }
    for (int u = 0; u <= t; ++u) {
      p[u] = expf(p[u] - most);
      sum += p[u];
    }
    for (int d = 0; d < kHead; ++d) {
      float value = 0;
      for (int u = 0; u <= t; ++u) {
        if (d == 0) p[u] /= sum;
        value = fmaf(
            p[u], qkv[(base + u) * 3 * kDim + 2 * kDim + h * kHead + d], value);
      }
      mixed[r * kDim + h * kHead + d] = value;
    }
  });
}

// dmixed -> dqkv; dscores is scratch.
template <typename For>
void AttendBack(For run, const Saved& s, const float* dmixed, float* dscores,
                float* dqkv) {
  const float *qkv = s.qkv, *weights = s.weights;
  const float scale = 1 / sqrtf(static_cast<float>(kHead));
  run(kRows * kHeads, [=] __host__ __device__(int i) {
    const int r = i / kHeads, h = i % kHeads, t = r % kTime, base = r - t;
    const float* dy = dmixed + r * kDim + h * kHead;
    const float* p = weights + i * kTime;
    float* ds = dscores + i * kTime;
    float total = 0;
    for (int u = 0; u <= t; ++u) {
      const float* v = qkv + (base + u) * 3 * kDim + 2 * kDim + h * kHead;
      float dot = 0;
      for (int d = 0; d < kHead; ++d) dot = fmaf(dy[d], v[d], dot);
      ds[u] = dot;
      total = fmaf(dot, p[u], total);
    }
    for (int u = 0; u <= t; ++u) ds[u] = p[u] * (ds[u] - total) * scale;
  });
  run(kRows * kDim, [=] __host__ __device__(int i) {
    const int r = i / kDim, d = i % kDim, h = d / kHead, t = r % kTime;
    const int base = r - t;
    float dq = 0, dk = 0, dv = 0;
    for (int u = 0; u < kTime; ++u) {
      const int other = base + u;
      if (u <= t) {
        dq = fmaf(dscores[(r * kHeads + h) * kTime + u],
                  qkv[other * 3 * kDim + kDim + d], dq);
      }
      if (u >= t) {
        const int at = (other * kHeads + h) * kTime + t;
        dk = fmaf(dscores[at], qkv[other * 3 * kDim + d], dk);
        dv = fmaf(weights[at], dmixed[other * kDim + d], dv);
      }
    }
    dqkv[r * 3 * kDim + d] = dq;
    dqkv[r * 3 * kDim + kDim + d] = dk;
    dqkv[r * 3 * kDim + 2 * kDim + d] = dv;
  });
}

template <typename For>
void Copy(For run, const float* from, float* to, int n) {
  run(n, [=] __host__ __device__(int i) { to[i] = from[i]; });
}

constexpr float kGelu = 0.7978845608f;

template <typename For>
void Forward(For run, const Memory& m, const int* tokens) {
  const float* p = m.parameters;
  float *x = m.x, *losses = m.losses, *logits = m.logits;
  run(kRows * kDim, [=] __host__ __device__(int i) {
    const int r = i / kDim, t = r % kTime;
    const int token = tokens[r / kTime * (kTime + 1) + t];
    x[i] = p[token * kDim + i % kDim] + p[kPosition + t * kDim + i % kDim];
  });
  for (int l = 0; l < kLayers; ++l) {
    const Saved& s = m.saved[l];
    const float* w = p + kFirst + l * kLayer;
    Copy(run, x, s.in, kRows * kDim);
    Norm(run, s.in, w, s.norm1);
    Multiply(run, s.norm1, w + kQkv, s.qkv, kDim, 3 * kDim, false);
    Attend(run, s);
    Multiply(run, s.mixed, w + kOut, x, kDim, kDim, true);
    Copy(run, x, s.middle, kRows * kDim);
    Norm(run, s.middle, w + kDim, s.norm2);
    Multiply(run, s.norm2, w + kUp, s.up, kDim, kHidden, false);
    const float* up = s.up;
    float* active = s.active;
    run(kRows * kHidden, [=] __host__ __device__(int i) {
      const float u = up[i];
      active[i] = 0.5f * u * (1 + tanhf(kGelu * (u + 0.044715f * u * u * u)));
    });
    Multiply(run, s.active, w + kDown, x, kHidden, kDim, true);
  }
  Copy(run, x, m.out, kRows * kDim);
  Norm(run, m.out, p + kLast, m.last_norm);
  Multiply(run, m.last_norm, p + kLogits, logits, kDim, kVocabulary, false);
  // The loss, and its gradient in place of the logits.
  run(kRows, [=] __host__ __device__(int r) {
    const int want = tokens[r / kTime * (kTime + 1) + r % kTime + 1];
    float* row = logits + r * kVocabulary;
    float most = row[0], sum = 0;
    for (int v = 1; v < kVocabulary; ++v) most = fmaxf(most, row[v]);
    for (int v = 0; v < kVocabulary; ++v) sum += expf(row[v] - most);
    losses[r] = logf(sum) + most - row[want];
    for (int v = 0; v < kVocabulary; ++v) {
      row[v] = (expf(row[v] - most) / sum - (v == want ? 1.0f : 0.0f)) / kRows;
    }
  });
}

template <typename For>
void Backward(For run, const Memory& m, const int* tokens) {
  const float* p = m.parameters;
  float *g = m.gradients, *dx = m.dx, *a = m.a, *b = m.b;
  MultiplyBack(run, m.last_norm, p + kLogits, m.logits, a, g + kLogits, kDim,
               kVocabulary);
  run(kRows * kDim, [=] __host__ __device__(int i) { dx[i] = 0; });
  NormBack(run, m.out, p + kLast, a, dx, g + kLast);
  for (int l = kLayers - 1; l >= 0; --l) {
    const Saved& s = m.saved[l];
    const float* w = p + kFirst + l * kLayer;
    float* dw = g + kFirst + l * kLayer;
    MultiplyBack(run, s.active, w + kDown, dx, b, dw + kDown, kHidden, kDim);
    const float* up = s.up;
    run(kRows * kHidden, [=] __host__ __device__(int i) {
      const float u = up[i];
      const float t = tanhf(kGelu * (u + 0.044715f * u * u * u));
      const float slope = kGelu * (1 + 3 * 0.044715f * u * u);
      b[i] *= 0.5f * (1 + t) + 0.5f * u * (1 - t * t) * slope;
    });
    MultiplyBack(run, s.norm2, w + kUp, b, a, dw + kUp, kDim, kHidden);
    NormBack(run, s.middle, w + kDim, a, dx, dw + kDim);
    MultiplyBack(run, s.mixed, w + kOut, dx, b, dw + kOut, kDim, kDim);
    AttendBack(run, s, b, m.c, a);
    MultiplyBack(run, s.norm1, w + kQkv, a, b, dw + kQkv, kDim, 3 * kDim);
    NormBack(run, s.in, w, b, dx, dw);
  }
  run(kFirst, [=] __host__ __device__(int i) {  // the embeddings
    float sum = 0;
    for (int r = 0; r < kRows; ++r) {
      const int token = tokens[r / kTime * (kTime + 1) + r % kTime];
      const bool mine = i < kPosition ? token == i / kDim
                                      : r % kTime == (i - kPosition) / kDim;
      if (mine) sum += dx[r * kDim + i % kDim];
    }
    g[i] = sum;
  });
}

// One step of learning; `step` counts from 1.
template <typename For>
void Train(For run, const Memory& m, const int* tokens, int step) {
  Forward(run, m, tokens);
  Backward(run, m, tokens);
  float *p = m.parameters, *m1 = m.moment1, *m2 = m.moment2;
  const float* g = m.gradients;
  const float c1 = 1 / (1 - std::pow(0.9f, static_cast<float>(step)));
  const float c2 = 1 / (1 - std::pow(0.99f, static_cast<float>(step)));
  run(kParameters, [=] __host__ __device__(int i) {
    m1[i] = 0.9f * m1[i] + 0.1f * g[i];
    m2[i] = 0.99f * m2[i] + 0.01f * g[i] * g[i];
    p[i] -= 0.01f * m1[i] * c1 / (sqrtf(m2[i] * c2) + 1e-4f);
  });
}

}  // namespace gpt

#endif  // POS_TESTS_PROGRAMS_GPT_MODEL_H_
