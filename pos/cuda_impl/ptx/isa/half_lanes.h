// Registers of f16 and bf16 as arrays of float, and back: 32 numbers, or the 64
// of a register that holds two per lane (the low half first, which is how they
// lie in memory).
//
// With F16C the processor converts f16; the integer code beside it gives the
// same bits but for NaNs, which are made canonical before they are stored.
#ifndef POS_CUDA_IMPL_PTX_ISA_HALF_LANES_H_
#define POS_CUDA_IMPL_PTX_ISA_HALF_LANES_H_

#include "pos/cuda_impl/ptx/isa/half_ops.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

#if defined(__clang__)
#define POS_COUNT(n, count)                                           \
  _Pragma("clang loop vectorize(assume_safety)") for (unsigned n = 0; \
                                                      n < (count); ++n)
#else
#define POS_COUNT(n, count) \
  _Pragma("GCC ivdep") for (unsigned n = 0; n < (count); ++n)
#endif

namespace pos::ptx::POS_PTX_ISA {
namespace {

// Subnormals become zeros of the same sign. (f16 only: bf16 has no .ftz but in
// ex2, where float flushes.)
POS_INLINE u16 FlushHalf(u16 half) {
  return static_cast<u16>((half & 0x7c00) == 0 ? half & 0x8000 : half);
}

template <typename Format, unsigned kCount>
POS_INLINE void WidenHalves(const u16* in, float* out) {
  if constexpr (Format::kMantissa == BfloatFormat::kMantissa) {
    POS_COUNT(n, kCount) { out[n] = FloatOf(static_cast<u32>(in[n]) << 16); }
  } else {
#if defined(__F16C__)
    for (unsigned n = 0; n < kCount; n += 8) {
      const __m128i halves =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + n));
      _mm256_storeu_ps(out + n, _mm256_cvtph_ps(halves));
    }
#else
    POS_COUNT(n, kCount) { out[n] = HalfToFloat(in[n]); }
#endif
  }
}

// To nearest. NaNs must be kNan32.
template <typename Format, unsigned kCount>
POS_INLINE void NarrowFloats(const float* in, u16* out) {
  if constexpr (Format::kMantissa == BfloatFormat::kMantissa) {
    POS_COUNT(n, kCount) { out[n] = FloatToBfloat(in[n]); }
  } else {
#if defined(__F16C__)
    for (unsigned n = 0; n < kCount; n += 8) {
      const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(in + n), 0);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + n), halves);
    }
#else
    POS_COUNT(n, kCount) { out[n] = FloatToHalf(in[n]); }
#endif
  }
}

// Writes the active lanes.
template <bool kPartial, unsigned kCount>
POS_INLINE void PutHalves(const Warp* w, u32 d, const u16* halves) {
  if constexpr (kCount == kLanes) {
    Put<kPartial>(w, Out<u16>(w, d), [=](unsigned l) { return halves[l]; });
  } else {
    const u32* pairs = reinterpret_cast<const u32*>(halves);
    Put<kPartial>(w, Out<u32>(w, d), [=](unsigned l) { return pairs[l]; });
  }
}

// A source, flushed if `flags` say so.
template <typename Format, unsigned kCount>
POS_INLINE void LoadHalves(const u16* in, u32 flags, float* out) {
  if ((flags & kFtz) == 0) {
    WidenHalves<Format, kCount>(in, out);
    return;
  }
  alignas(64) u16 flushed[kCount];
  POS_COUNT(n, kCount) { flushed[n] = FlushHalf(in[n]); }
  WidenHalves<Format, kCount>(flushed, out);
}

// A result: clamped, rounded and flushed as `flags` say. NaNs must be kNan32.
template <bool kPartial, typename Format, unsigned kCount>
POS_INLINE void StoreHalves(const Warp* w, u32 d, u32 flags, float* value) {
  alignas(64) u16 out[kCount];
  if ((flags & kSat) != 0) {
    POS_COUNT(n, kCount) { value[n] = Saturate(value[n]); }
  }
  if ((flags & kRelu) != 0) {
    POS_COUNT(n, kCount) { value[n] = value[n] <= 0.0f ? 0.0f : value[n]; }
  }
  NarrowFloats<Format, kCount>(value, out);
  if ((flags & kFtz) != 0) {
    POS_COUNT(n, kCount) { out[n] = FlushHalf(out[n]); }
  }
  PutHalves<kPartial, kCount>(w, d, out);
}

}  // namespace
}  // namespace pos::ptx::POS_PTX_ISA

#endif  // POS_CUDA_IMPL_PTX_ISA_HALF_LANES_H_
