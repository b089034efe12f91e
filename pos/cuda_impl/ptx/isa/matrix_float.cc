// Products of matrices of narrow floating-point elements, as an H100's tensor
// cores compute them: with one sum for all of k, cut off in one place.
//
//   Every product a b is exact. Its exponent is the sum of those of a and b (a
//   subnormal number has its format's smallest), that of c its own, at least
//   -126; zeros have none. With E the largest of them, every product and c is
//   cut off, toward zero, below 2^(E - 25). The sum of what is left is exact.
//   It is rounded once, toward zero to f32 or to nearest to f16. A sum of zero
//   is +0; beyond f32's range it is infinite; a NaN is canonical.
//
// That is what Xie et al., "MMA-Sim: Bit-Accurate Reference Model of Tensor
// Cores and Matrix Cores" (arXiv 2511.10909), found for mma on Hopper; tf32
// inputs are cut off to 10 bits of mantissa.
//
// How: products in f32, a power of two for each number in place of its
// exponent, 16 rows of the longer side at once. In f32 that is exact while
// nothing overflows; matrices with a NaN, an infinity or numbers beyond
// 2^±50 (f16, fp8: never) go the slow way, which is exact for all.
#include "pos/cuda_impl/ptx/isa/matrix_formats.h"
#include "pos/cuda_impl/ptx/isa/matrix_ops.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

constexpr u32 kGroup = kMatrixGroup;  // rows at once
constexpr u32 kMostResults = 256;
constexpr u32 kMostElements = 512;
constexpr s32 kKeptBits = 25;
constexpr s32 kLeastExponent = -126;

POS_INLINE double PowerOfTwo(s32 exponent) {
  return DoubleOf(static_cast<u64>(static_cast<s64>(exponent) + 1023) << 52);
}

// ---- The fast way.

struct Side {
  alignas(64) float value[kMostElements];
  alignas(64) float power[kMostElements];
};

// Packed elements [row][k] to [k][row].
template <typename Raw, u32 kK>
void Turn(const Raw* from, u32 rows, Raw* to) {
  for (u32 first = 0; first < rows; first += kGroup) {
    for (u32 kk = 0; kk < kK; ++kk) {
      const Raw* const column = from + first * kK + kk;
      Raw* const row = to + kk * rows + first;
      for (u32 r = 0; r < kGroup; ++r) row[r] = column[r * kK];
    }
  }
}
template <typename Raw>
void Turn(const u32* packed, u32 rows, u32 k, u32* to) {
  const Raw* const from = reinterpret_cast<const Raw*>(packed);
  Raw* const out = reinterpret_cast<Raw*>(to);
  switch (k) {
    case 4:
      return Turn<Raw, 4>(from, rows, out);
    case 8:
      return Turn<Raw, 8>(from, rows, out);
    case 16:
      return Turn<Raw, 16>(from, rows, out);
    default:
      return Turn<Raw, 32>(from, rows, out);
  }
}

// All of a factor's elements; not zero: the slow way is needed.
template <typename F>
u32 SplitAll(const u32* packed, u32 count, Side* side) {
  using Raw = typename F::Raw;
  const Raw* const raw = reinterpret_cast<const Raw*>(packed);
  alignas(64) u32 slow[kGroup] = {};
  for (u32 first = 0; first < count; first += kGroup) {
    const Raw* const from = raw + first;
    float* const value = side->value + first;
    float* const power = side->power + first;
    alignas(64) u32 wide[kGroup];  // lanes of one width: vector code
    POS_GROUP(l) { wide[l] = from[l]; }
    POS_GROUP(l) { slow[l] |= F::Split(wide[l], value + l, power + l); }
  }
  u32 any = 0;
  for (u32 l = 0; l < kGroup; ++l) any |= slow[l];
  return any;
}

struct Sums {
  // Whole multiples of 2^(E - 25): of the products, in two parts that hold up
  // to 16 of them each, and of c; and 2^E.
  alignas(64) s32 part[2][kMostResults];
  alignas(64) s32 own[kMostResults];
  alignas(64) float power[kMostResults];
};

// Sums of one row of the shorter side (`value`, `power`) with 16 of the longer
// one, to `result` on in `sums`, which has the exponents of c.
template <u32 kK>
POS_INLINE void SumGroup(const float* value, const float* power,
                         const Side& across, u32 at, u32 rows, const float* c,
                         u32 result, Sums* sums) {
  Floats* const most = reinterpret_cast<Floats*>(sums->power + result);
  Floats top[kParts];
  for (u32 i = 0; i < kParts; ++i) top[i] = most[i];
  for (u32 kk = 0; kk < kK; ++kk) {
    const Floats* p =
        reinterpret_cast<const Floats*>(across.power + kk * rows + at);
    for (u32 i = 0; i < kParts; ++i) {
      const Floats product = power[kk] * p[i];
      top[i] = top[i] > product ? top[i] : product;
    }
  }
  Floats scale[kParts];
  for (u32 i = 0; i < kParts; ++i) {
    most[i] = top[i];
    // 2^(25 - E), or as much of it as f32 has: then all products are zero, and
    // the rest of it is for c.
    const Ints field =
        (254 + kKeptBits) - (reinterpret_cast<Ints&>(top[i]) >> 23);
    const Ints limit = Ints{} + 254;
    const Ints first = field < limit ? field : limit;
    const Ints cut = first << 23;
    const Ints rest = (field - first + 127) << 23;
    scale[i] = reinterpret_cast<const Floats&>(cut);
    const Floats own = reinterpret_cast<const Floats*>(c + result)[i] *
                       scale[i] * reinterpret_cast<const Floats&>(rest);
    reinterpret_cast<Ints*>(sums->own + result)[i] =
        __builtin_convertvector(own, Ints);
  }
  for (u32 part = 0; part * 16 < kK; ++part) {
    Ints sum[kParts] = {};
    constexpr u32 kSteps = kK < 16 ? kK : 16;
    for (u32 step = 0; step < kSteps; ++step) {
      const u32 kk = part * 16 + step;
      const Floats* v =
          reinterpret_cast<const Floats*>(across.value + kk * rows + at);
      for (u32 i = 0; i < kParts; ++i) {
        const Floats product = value[kk] * v[i] * scale[i];
        sum[i] += __builtin_convertvector(product, Ints);
      }
    }
    Ints* const out = reinterpret_cast<Ints*>(sums->part[part] + result);
    for (u32 i = 0; i < kParts; ++i) out[i] = sum[i];
  }
}

template <u32 kK>
void SumAll(const Side& along, const Side& across, u32 others, u32 rows,
            const float* c, Sums* sums) {
  for (u32 x = 0; x < others; ++x) {
    for (u32 at = 0; at < rows; at += kGroup) {
      SumGroup<kK>(along.value + x * kK, along.power + x * kK, across, at, rows,
                   c, x * rows + at, sums);
    }
  }
}

// What lies in `sums`, put together: not rounded. c is the result where it is
// not finite.
template <bool kTwoParts>
void Combine(const Sums& sums, const float* c, u32 count, double* exact) {
  for (u32 first = 0; first < count; first += kGroup) {
    const s32* const part = sums.part[0] + first;
    const s32* const rest = sums.part[1] + first;
    const s32* const own = sums.own + first;
    const float* const power = sums.power + first;
    const float* const before = c + first;
    double* const out = exact + first;
    POS_GROUP(l) {
      const u64 field = BitsOf(power[l]) >> 23;
      const double unit = DoubleOf((field + (1023 - kKeptBits - 127)) << 52);
      double total = static_cast<double>(part[l]) + static_cast<double>(own[l]);
      if constexpr (kTwoParts) total += static_cast<double>(rest[l]);
      const float nothing = before[l] - before[l];  // a NaN if not finite
      const double special = static_cast<double>(before[l]);
      out[l] = nothing == 0.0f ? total * unit : special;
    }
  }
}

// c as f32, and 2^exponent of it.
void SplitResults(const MatrixProduct& p, u32 count, float* c, float* power) {
  if (p.type_c == Type::kF16) {
    for (u32 e = 0; e < count; ++e) {
      const u16 raw = static_cast<u16>(p.c[e]);
      F16::Split(raw, c + e, power + e);
      c[e] = HalfToFloat(raw);
      power[e] = power[e] > 0x1p-126f ? power[e] : 0x1p-126f;
    }
    return;
  }
  for (u32 e = 0; e < count; ++e) {
    c[e] = FloatOf(p.c[e]);
    const float top = FloatOf(p.c[e] & 0x7f800000);
    power[e] = top > 0x1p-126f ? top : 0x1p-126f;
  }
}

// ---- Rounding.

POS_OPAQUE void NarrowAll(const double* exact, u32 count, float* out) {
  for (u32 e = 0; e < count; ++e) out[e] = static_cast<float>(exact[e]);
}

void RoundResults(const double* exact, u32 count, MatrixProduct* p) {
  if (p->type_d == Type::kF16) {
    for (u32 e = 0; e < count; ++e) {
      p->c[e] = RoundTo<HalfFormat>(BitsOf(exact[e]), kRoundNearest);
    }
    return;
  }
  alignas(64) float narrow[kMostResults];
  {
    const RoundingScope toward_zero(kRoundZero);
    NarrowAll(exact, count, narrow);
  }
  for (u32 e = 0; e < count; ++e) {
    const double size = exact[e] < 0 ? -exact[e] : exact[e];
    const u32 sign = BitsOf(narrow[e]) & 0x80000000;
    const u32 bits = size >= 0x1p128 ? sign | 0x7f800000 : BitsOf(narrow[e]);
    p->c[e] = exact[e] == exact[e] ? bits : kNan32;
  }
}

// ---- The slow way: one element of the result.

struct Exact {
  double value[kMostElements];
  s32 exponent[kMostElements];
};

template <typename F>
u32 Widen(const u32* packed, u32 count, Exact* out) {
  const auto* raw = reinterpret_cast<const typename F::Raw*>(packed);
  for (u32 e = 0; e < count; ++e) {
    out->value[e] = F::Value(raw[e]);
    out->exponent[e] = F::Exponent(raw[e]);
  }
  return 0;
}

double Dot(const double* a, const s32* ea, const double* b, const s32* eb,
           u32 k, double c, s32 ec) {
  s32 most = c != 0 && ec > kLeastExponent ? ec : kLeastExponent;
  double about = c;  // finite when all are
  for (u32 kk = 0; kk < k; ++kk) {
    const double product = a[kk] * b[kk];
    const s32 exponent = ea[kk] + eb[kk];
    if (product != 0 && exponent > most) most = exponent;
    about += product;
  }
  if (about - about != 0) return about;
  const double up = PowerOfTwo(kKeptBits - most);
  s64 sum = static_cast<s64>(c * up);
  for (u32 kk = 0; kk < k; ++kk) sum += static_cast<s64>(a[kk] * b[kk] * up);
  return static_cast<double>(sum) * PowerOfTwo(most - kKeptBits);
}

POS_INLINE void WidenResult(const MatrixProduct& p, u32 at, double* value,
                            s32* exponent) {
  if (p.type_c == Type::kF16) {
    *value = F16::Value(static_cast<u16>(p.c[at]));
    *exponent = F16::Exponent(static_cast<u16>(p.c[at]));
  } else {
    *value = static_cast<double>(FloatOf(p.c[at]));
    *exponent = ExponentWide(p.c[at]);
  }
}

void MultiplySlowly(MatrixProduct* p) {
  Exact a;
  Exact b;
  WithFormat(p->type_a, [&](auto format) {
    return Widen<decltype(format)>(p->a, p->m * p->k, &a);
  });
  WithFormat(p->type_b, [&](auto format) {
    return Widen<decltype(format)>(p->b, p->n * p->k, &b);
  });
  double exact[kMostResults];
  for (u32 row = 0; row < p->m; ++row) {
    for (u32 column = 0; column < p->n; ++column) {
      const u32 at = row * p->step_row + column * p->step_column;
      double c = 0;
      s32 exponent = 0;
      WidenResult(*p, at, &c, &exponent);
      const u32 i = row * p->k;
      const u32 j = column * p->k;
      exact[at] = Dot(a.value + i, a.exponent + i, b.value + j, b.exponent + j,
                      p->k, c, exponent);
    }
  }
  RoundResults(&exact[0], p->m * p->n, p);
}

}  // namespace

void MultiplyFloat(MatrixProduct* p) {
  const bool along_m = p->m >= 16;
  const u32 rows = along_m ? p->m : p->n;
  const u32 others = along_m ? p->n : p->m;
  const u32 k = p->k;
  Side across;
  Side along;
  u32 slow = WithFormat(along_m ? p->type_a : p->type_b, [&](auto format) {
    using F = decltype(format);
    alignas(64) u32 turned[kMostElements];
    Turn<typename F::Raw>(along_m ? p->a : p->b, rows, k, turned);
    return SplitAll<F>(turned, rows * k, &across);
  });
  slow |= WithFormat(along_m ? p->type_b : p->type_a, [&](auto format) {
    using F = decltype(format);
    return SplitAll<F>(along_m ? p->b : p->a, others * k, &along);
  });
  if (slow != 0) return MultiplySlowly(p);
  const u32 count = rows * others;
  alignas(64) float c[kMostResults];
  alignas(64) double exact[kMostResults];
  Sums sums;
  SplitResults(*p, count, c, sums.power);
  switch (k) {
    case 4:
      SumAll<4>(along, across, others, rows, c, &sums);
      break;
    case 8:
      SumAll<8>(along, across, others, rows, c, &sums);
      break;
    case 16:
      SumAll<16>(along, across, others, rows, c, &sums);
      break;
    default:
      SumAll<32>(along, across, others, rows, c, &sums);
      break;
  }
  if (k > 16) {
    Combine<true>(sums, c, count, exact);
  } else {
    Combine<false>(sums, c, count, exact);
  }
  RoundResults(exact, count, p);
}

void MultiplyQuads(MatrixProduct* p) {
  constexpr u32 kElements = 128;  // of four products of 8 x 4
  Exact a;
  Exact b;
  for (u32 e = 0; e < kElements; ++e) {
    a.value[e] = F16::Value(static_cast<u16>(p->a[e]));
    a.exponent[e] = F16::Exponent(static_cast<u16>(p->a[e]));
    b.value[e] = F16::Value(static_cast<u16>(p->b[e]));
    b.exponent[e] = F16::Exponent(static_cast<u16>(p->b[e]));
  }
  double exact[kMostResults];
  for (u32 at = 0; at < kMostResults; ++at) {
    const u32 i = at / 64 * 32 + at % 64 / 8 * 4;
    const u32 j = at / 64 * 32 + at % 8 * 4;
    double c = 0;
    s32 exponent = 0;
    WidenResult(*p, at, &c, &exponent);
    exact[at] = Dot(a.value + i, a.exponent + i, b.value + j, b.exponent + j, 4,
                    c, exponent);
  }
  RoundResults(&exact[0], kMostResults, p);
}

}  // namespace pos::ptx::POS_PTX_ISA
