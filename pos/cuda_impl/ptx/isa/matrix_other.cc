// Products of matrices of integers, of bits and of f64.
#include "pos/cuda_impl/ptx/isa/bit_ops.h"
#include "pos/cuda_impl/ptx/isa/float_ops.h"
#include "pos/cuda_impl/ptx/isa/matrix_ops.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

constexpr u32 kGroup = 16;

POS_INLINE u32 AddWrapping(u32 c, s32 sum) { return c + static_cast<u32>(sum); }
POS_INLINE u32 AddSaturating(u32 c, s32 sum) {
  const s64 whole = static_cast<s64>(static_cast<s32>(c)) + sum;
  const s64 low = whole < -0x80000000ll ? -0x80000000ll : whole;
  return static_cast<u32>(low > 0x7fffffffll ? 0x7fffffffll : low);
}

// Element `e` of packed ones.
POS_INLINE s32 IntegerAt(const u32* packed, u32 e, Type type) {
  const u32 bits = ElementBits(type);
  const u32 per_word = 32 / bits;
  const u32 shifted = packed[e / per_word] << (32 - bits - e % per_word * bits);
  return Signed(type) || type == Type::kS4
             ? static_cast<s32>(shifted) >> (32 - bits)
             : static_cast<s32>(shifted >> (32 - bits));
}

template <Type kType>
void Unpack(const u32* packed, u32 count, float* out) {
  for (u32 e = 0; e < count; ++e) {
    out[e] = static_cast<float>(IntegerAt(packed, e, kType));
  }
}
void UnpackAll(const u32* packed, u32 count, Type type, float* out) {
  switch (type) {
    case Type::kS8:
      return Unpack<Type::kS8>(packed, count, out);
    case Type::kU8:
      return Unpack<Type::kU8>(packed, count, out);
    case Type::kS4:
      return Unpack<Type::kS4>(packed, count, out);
    default:
      return Unpack<Type::kU4>(packed, count, out);
  }
}

}  // namespace

// Sums of up to 64 products of bytes or half bytes are exact in f32.
void MultiplyInteger(MatrixProduct* p) {
  constexpr u32 kMost = 1024;  // 16 rows of 64 elements
  const bool along_m = p->m >= 16;
  const u32 rows = along_m ? p->m : p->n;
  const u32 others = along_m ? p->n : p->m;
  const u32 k = p->k;
  alignas(64) float plain[kMost];
  alignas(64) float across[kMost];  // [k][16 or 32 rows]
  alignas(64) float along[kMost];
  UnpackAll(along_m ? p->a : p->b, rows * k, along_m ? p->type_a : p->type_b,
            plain);
  UnpackAll(along_m ? p->b : p->a, others * k, along_m ? p->type_b : p->type_a,
            along);
  const u32 stride = rows < kGroup ? kGroup : rows;
  for (u32 kk = 0; kk < k; ++kk) {
    for (u32 r = 0; r < stride; ++r) {
      across[kk * stride + r] = r < rows ? plain[r * k + kk] : 0.0f;
    }
  }
  const bool saturates = (p->flags & kMatrixSaturate) != 0;
  for (u32 x = 0; x < others; ++x) {
    for (u32 at = 0; at < rows; at += kGroup) {
      alignas(64) float sum[kGroup] = {};
      for (u32 kk = 0; kk < k; ++kk) {
        const float factor = along[x * k + kk];
        const float* const from = across + kk * stride + at;
        for (u32 r = 0; r < kGroup; ++r) sum[r] += factor * from[r];
      }
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
