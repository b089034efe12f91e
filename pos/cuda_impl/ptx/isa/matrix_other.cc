// Products of matrices of integers, of bits and of f64.
#include "pos/cuda_impl/ptx/isa/bit_ops.h"
#include "pos/cuda_impl/ptx/isa/float_ops.h"
#include "pos/cuda_impl/ptx/isa/matrix_ops.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

constexpr u32 kGroup = kMatrixGroup;

POS_INLINE u32 AddWrapping(u32 c, s32 sum) { return c + static_cast<u32>(sum); }
POS_INLINE u32 AddSaturating(u32 c, s32 sum) {
  const s64 whole = static_cast<s64>(static_cast<s32>(c)) + sum;
  const s64 low = whole < -0x80000000ll ? -0x80000000ll : whole;
  return static_cast<u32>(low > 0x7fffffffll ? 0x7fffffffll : low);
}

// Half bytes to bytes, in order.
void Spread(const u32* packed, u32 words, bool is_signed, u8* out) {
  const u8* const from = reinterpret_cast<const u8*>(packed);
  for (u32 i = 0; i < 4 * words; ++i) {
    const u32 low = from[i] & 15;
    const u32 high = from[i] >> 4;
    out[2 * i] = static_cast<u8>(is_signed ? (low ^ 8) - 8 : low);
    out[2 * i + 1] = static_cast<u8>(is_signed ? (high ^ 8) - 8 : high);
  }
}

// One factor of a product of integers: bytes, and what they count as.
struct Factor {
  const u8* bytes;
  bool is_signed;
};

constexpr u32 kMostFactors = 1024;  // 16 rows of 64 elements

POS_INLINE Factor FactorOf(const u32* packed, u32 count, Type type,
                           u8* spread) {
  const bool is_signed = type == Type::kS8 || type == Type::kS4;
  if (type == Type::kS8 || type == Type::kU8) {
    return {reinterpret_cast<const u8*>(packed), is_signed};
  }
  Spread(packed, count / 8, is_signed, spread);
  return {spread, is_signed};
}

POS_INLINE float FloatOfByte(u8 byte, bool is_signed) {
  const s32 value = byte;
  return static_cast<float>(is_signed ? (value ^ 0x80) - 0x80 : value);
}

// [k][16 or more rows]; rows that there are not are zero.
void LayAcross(const Factor& factor, u32 rows, u32 k, u32 stride, float* out) {
  for (u32 kk = 0; kk < k; ++kk) {
    for (u32 first = 0; first < stride; first += kGroup) {
      alignas(16) u8 column[kGroup];
      const u32 count = rows < kGroup ? rows : kGroup;
      for (u32 r = 0; r < kGroup; ++r) column[r] = 0;
      for (u32 r = 0; r < count; ++r) {
        column[r] = factor.bytes[(first + r) * k + kk];
      }
      float* const to = out + kk * stride + first;
      POS_GROUP(r) { to[r] = FloatOfByte(column[r], factor.is_signed); }
    }
  }
}

}  // namespace

// Sums of up to 64 products of bytes or half bytes are exact in f32.
void MultiplyInteger(MatrixProduct* p) {
  const bool along_m = p->m >= 16;
  const u32 rows = along_m ? p->m : p->n;
  const u32 others = along_m ? p->n : p->m;
  const u32 k = p->k;
  u8 spread[2][kMostFactors];
  alignas(64) float across[kMostFactors];
  alignas(64) float along[kMostFactors];
  const Factor a = FactorOf(p->a, p->m * k, p->type_a, spread[0]);
  const Factor b = FactorOf(p->b, p->n * k, p->type_b, spread[1]);
  const u32 stride = rows < kGroup ? kGroup : rows;
  LayAcross(along_m ? a : b, rows, k, stride, across);
  const Factor& other = along_m ? b : a;
  for (u32 e = 0; e < others * k; ++e) {
    along[e] = FloatOfByte(other.bytes[e], other.is_signed);
  }
  const bool saturates = (p->flags & kMatrixSaturate) != 0;
  for (u32 x = 0; x < others; ++x) {
    for (u32 at = 0; at < rows; at += kGroup) {
      Floats sums[kParts] = {};
      for (u32 kk = 0; kk < k; ++kk) {
        const float factor = along[x * k + kk];
        const Floats* const from =
            reinterpret_cast<const Floats*>(across + kk * stride + at);
        for (u32 i = 0; i < kParts; ++i) sums[i] += factor * from[i];
      }
      const float* const sum = reinterpret_cast<const float*>(&sums[0]);
      u32* const c = p->c + x * rows + at;
      const u32 count = rows < kGroup ? rows : kGroup;
      for (u32 r = 0; r < count; ++r) {
        const s32 whole = static_cast<s32>(sum[r]);
        c[r] =
            saturates ? AddSaturating(c[r], whole) : AddWrapping(c[r], whole);
      }
    }
  }
}

void MultiplyBits(MatrixProduct* p) {
  const bool differ = (p->flags & kMatrixXor) != 0;
  const u32 words = p->k / 32;
  for (u32 row = 0; row < p->m; ++row) {
    for (u32 column = 0; column < p->n; ++column) {
      const u32* const a = p->a + row * p->pitch_a;
      const u32* const b = p->b + column * p->pitch_b;
      u32 sum = 0;
      for (u32 i = 0; i < words; ++i) {
        sum += Popc::Do(differ ? a[i] ^ b[i] : a[i] & b[i]);
      }
      p->c[row * p->step_row + column * p->step_column] += sum;
    }
  }
}

namespace {

// c = a b + c with one rounding for each k in turn. `across` is [k][rows].
template <typename Op, bool kAcrossFirst>
POS_OPAQUE void FmaAll(const double* across, const double* along, u32 rows,
                       u32 others, u32 k, double* c) {
  for (u32 x = 0; x < others; ++x) {
    for (u32 kk = 0; kk < k; ++kk) {
      const double y = along[x * k + kk];
      for (u32 r = 0; r < rows; ++r) {
        const double z = across[kk * rows + r];
        const double before = c[x * rows + r];
        const double after = Op::Do(z, y, before);
        c[x * rows + r] = kAcrossFirst ? PickNan(after, z, y, before)
                                       : PickNan(after, y, z, before);
      }
    }
  }
}

template <typename Op>
void FmaBothWays(bool along_m, const double* across, const double* along,
                 u32 rows, u32 others, u32 k, double* c) {
  if (along_m) {
    FmaAll<Op, true>(across, along, rows, others, k, c);
  } else {
    FmaAll<Op, false>(across, along, rows, others, k, c);
  }
}

}  // namespace

void MultiplyDouble(MatrixProduct* p) {
  const bool along_m = p->m >= 16;
  const u32 rows = along_m ? p->m : p->n;
  const u32 others = along_m ? p->n : p->m;
  const u32 k = p->k;
  const auto* const a = reinterpret_cast<const double*>(p->a);
  const auto* const b = reinterpret_cast<const double*>(p->b);
  const double* const from = along_m ? a : b;
  alignas(64) double across[256];
  for (u32 kk = 0; kk < k; ++kk) {
    for (u32 r = 0; r < rows; ++r) across[kk * rows + r] = from[r * k + kk];
  }
  const double* const along = along_m ? b : a;
  auto* const c = reinterpret_cast<double*>(p->c);
  const u32 mode = p->flags & kRoundMask;
  if (mode == kRoundNearest) {
    FmaBothWays<Fma>(along_m, across, along, rows, others, k, c);
    return;
  }
  const RoundingScope scope(mode);
  FmaBothWays<FmaDirected>(along_m, across, along, rows, others, k, c);
}

}  // namespace pos::ptx::POS_PTX_ISA
