// Video instructions: arithmetic on words, half-words or bytes of registers,
// with saturation and a second operation.
//
// They are rare, so one handler for each operation does all of its forms; what
// an instruction wants is packed into Inst::imm (VideoBits, isa.h). The result
// of the first operation has 32 bits of the destination's type when the second
// one sees it, which is what code generated for current devices computes.
#include "pos/cuda_impl/ptx/isa/handlers.h"
#include "pos/cuda_impl/ptx/isa/lanes.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

__extension__ using s128 = __int128;

struct Part {
  u32 shift;
  u32 drop;  // bits above it in 64
  bool is_signed;
};
POS_INLINE Part PartOf(u64 imm, u64 at) {
  const u64 bits = imm >> at & 0xff;
  return {static_cast<u32>(bits & kVideoShift),
          64 - (8u << (bits >> kVideoWidthAt & 3)), (bits & kVideoSigned) != 0};
}
POS_INLINE s64 Extract(u32 x, Part part) {
  const u64 top = static_cast<u64>(x) >> part.shift << part.drop;
  const u64 as_unsigned = top >> part.drop;
  const s64 as_signed = static_cast<s64>(top) >> part.drop;
  return part.is_signed ? as_signed : static_cast<s64>(as_unsigned);
}
POS_INLINE s64 As32(s64 x, bool is_signed) {
  return is_signed ? s64{static_cast<s32>(x)} : s64{static_cast<u32>(x)};
}
POS_INLINE s64 Least(s64 a, s64 b) { return a < b ? a : b; }
POS_INLINE s64 Most(s64 a, s64 b) { return a > b ? a : b; }

POS_INLINE bool Compares(u32 relation, s64 a, s64 b) {
  switch (relation) {
    case 0:
      return a == b;
    case 1:
      return a != b;
    case 2:
      return a < b;
    case 3:
      return a <= b;
    case 4:
      return a > b;
    default:
      return a >= b;
  }
}

enum class VideoOp { kAdd, kSub, kAbsDiff, kMin, kMax, kAverage, kSet };
template <VideoOp kOp>
POS_INLINE s64 Compute(s64 a, s64 b, u32 relation) {
  switch (kOp) {
    case VideoOp::kAdd:
      return a + b;
    case VideoOp::kSub:
      return a - b;
    case VideoOp::kAbsDiff:
      return a < b ? b - a : a - b;
    case VideoOp::kMin:
      return Least(a, b);
    case VideoOp::kMax:
      return Most(a, b);
    case VideoOp::kAverage:  // halves away from zero
      return (a + b + (a + b >= 0 ? 1 : 0)) >> 1;
    case VideoOp::kSet:
      return Compares(relation, a, b) ? 1 : 0;
  }
  return 0;
}

// ---- Scalar.

// What follows the first operation, for all lanes alike.
struct Finish {
  s64 low;
  s64 high;
  u32 second;  // VideoBits: 0, add, min, max
  u32 at;      // merging: where and how wide the part of d is
  u32 mask;    // 0: no merging
  bool is_signed;

  explicit POS_INLINE Finish(u64 imm) {
    is_signed = (imm & kVideoResultSigned) != 0;
    second = static_cast<u32>(imm >> kVideoSecondAt) & 3;
    const u32 place = static_cast<u32>(imm >> kVideoPlaceAt) & 7;
    const u32 bits = place == 0 ? 32 : place < 5 ? 8 : 16;
    at = place == 0 ? 0 : place < 5 ? 8 * (place - 1) : 16 * (place - 5);
    mask = place == 0 ? 0 : ((1u << (bits & 31)) - 1) << at;
    const bool saturates = (imm & kVideoSat) != 0;
    const s64 all = (s64{1} << bits) - 1;
    low = is_signed ? -(all >> 1) - 1 : 0;
    high = is_signed ? all >> 1 : all;
    if (!saturates) {
      low = -0x7fffffffffffffff - 1;
      high = 0x7fffffffffffffff;
    }
  }
  POS_INLINE u32 Do(s64 first, u32 c) const {
    const s64 value = As32(Most(low, Least(high, first)), is_signed);
    const s64 with = As32(c, is_signed);
    const s64 then = second == 0   ? value
                     : second == 1 ? value + with
                     : second == 2 ? Least(value, with)
                                   : Most(value, with);
    const u32 result = static_cast<u32>(then);
    return mask == 0 ? result : (result << at & mask) | (c & ~mask);
  }
};

template <VideoOp kOp>
struct VideoScalar {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32* a = In<u32>(w, i->a);
    const u32* b = In<u32>(w, i->b);
    const u32* c = In<u32>(w, i->c);
    const u64 imm = static_cast<u64>(i->imm);
    const Part left = PartOf(imm, kVideoA);
    const Part right = PartOf(imm, kVideoB);
    const u32 relation = static_cast<u32>(imm >> kVideoCompareAt) & 7;
    const Finish finish(imm);
    Put<kPartial>(w, Out<u32>(w, i->d), [=](unsigned l) {
      return finish.Do(
          Compute<kOp>(Extract(a[l], left), Extract(b[l], right), relation),
          c[l]);
    });
    return i + 1;
  }
};

template <bool kLeftward>
struct VideoShift {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32* a = In<u32>(w, i->a);
    const u32* b = In<u32>(w, i->b);
    const u32* c = In<u32>(w, i->c);
    const u64 imm = static_cast<u64>(i->imm);
    const Part left = PartOf(imm, kVideoA);
    const Part right = PartOf(imm, kVideoB);
    const bool wraps = (imm & kVideoWrap) != 0;
    const Finish finish(imm);
    Put<kPartial>(w, Out<u32>(w, i->d), [=](unsigned l) {
      const u32 amount = static_cast<u32>(Extract(b[l], right));
      const u32 clamped = amount < 32 ? amount : 32;
      const u32 n = wraps ? amount & 31 : clamped;
      const s64 x = Extract(a[l], left);
      // Of a word that leaves its place only the sign counts.
      const s64 out = x == 0 ? 0 : x > 0 ? s64{1} << 62 : -(s64{1} << 62);
      const s64 up =
          n == 32 ? out : static_cast<s64>(static_cast<u64>(x) << (n & 31));
      const s64 shifted = kLeftward ? up : x >> n;
      return finish.Do(shifted, c[l]);
    });
    return i + 1;
  }
};

struct VideoMad {
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32* a = In<u32>(w, i->a);
    const u32* b = In<u32>(w, i->b);
    const u32* c = In<u32>(w, i->c);
    const u64 imm = static_cast<u64>(i->imm);
    const Part left = PartOf(imm, kVideoA);
    const Part right = PartOf(imm, kVideoB);
    const bool negate_product = (imm & kVideoNegateProduct) != 0;
    const bool negate_c = (imm & kVideoNegateC) != 0;
    const bool plus_one = (imm & kVideoPlusOne) != 0;
    const bool is_signed =
        left.is_signed | right.is_signed | negate_product | negate_c;
    const bool saturates = (imm & kVideoSat) != 0;
    const u32 scale = static_cast<u32>(imm >> kVideoScaleAt) & 15;
    const s128 low = is_signed ? -(s128{1} << 31) : 0;
    const s128 high = (s128{1} << (is_signed ? 31 : 32)) - 1;
    u32 out[kLanes];
    for (unsigned l = 0; l < kLanes; ++l) {
      s128 product = s128{Extract(a[l], left)} * Extract(b[l], right);
      if (negate_product) product = -product;
      const u32 added = negate_c ? ~c[l] : c[l];
      s128 sum = product + As32(added, is_signed);
      if (plus_one | negate_c) sum += 1;
      sum >>= scale;
      if (saturates) sum = sum < low ? low : sum > high ? high : sum;
      out[l] = static_cast<u32>(static_cast<u64>(sum));
    }
    const u32* result = &out[0];
    Put<kPartial>(w, Out<u32>(w, i->d), [=](unsigned l) { return result[l]; });
    return i + 1;
  }
};

// ---- Two half-words or four bytes at once.
template <VideoOp kOp, u32 kParts>
struct VideoSimd {
  static constexpr u32 kBits = 32 / kParts;
  static constexpr u32 kDrop = 64 - kBits;
  static POS_INLINE s64 Element(u64 both, u32 which, bool is_signed) {
    const u64 top = both >> (which * kBits) << kDrop;
    const u64 as_unsigned = top >> kDrop;
    const s64 as_signed = static_cast<s64>(top) >> kDrop;
    return is_signed ? as_signed : static_cast<s64>(as_unsigned);
  }
  template <bool kPartial>
  static const Inst* Run(Warp* w, const Inst* i) {
    const u32* a = In<u32>(w, i->a);
    const u32* b = In<u32>(w, i->b);
    const u32* c = In<u32>(w, i->c);
    const u64 imm = static_cast<u64>(i->imm);
    const bool a_signed = (imm & kSimdASigned) != 0;
    const bool b_signed = (imm & kSimdBSigned) != 0;
    const bool adds = (imm & kSimdAdd) != 0;
    const u32 relation = static_cast<u32>(imm >> kSimdCompareAt) & 7;
    const u32 mask = static_cast<u32>(imm >> kSimdMaskAt) & 15;
    constexpr s64 kAll = (s64{1} << kBits) - 1;
    const bool result_signed = (imm & kSimdResultSigned) != 0;
    const bool saturates = (imm & kSimdSat) != 0;
    const s64 limit = s64{1} << 40;
    const s64 low = !saturates ? -limit : result_signed ? -(kAll >> 1) - 1 : 0;
    const s64 high = !saturates ? limit : result_signed ? kAll >> 1 : kAll;
    Put<kPartial>(w, Out<u32>(w, i->d), [=](unsigned l) {
      const u64 both = static_cast<u64>(b[l]) << 32 | a[l];
      u32 sum = c[l];
      u32 merged = c[l];
      for (u32 part = 0; part < kParts; ++part) {
        const u32 from_a = static_cast<u32>(imm >> (3 * part)) & 7;
        const u32 from_b = static_cast<u32>(imm >> (12 + 3 * part)) & 7;
        const s64 t = Compute<kOp>(Element(both, from_a, a_signed),
                                   Element(both, from_b, b_signed), relation);
        const u32 bits = static_cast<u32>(Most(low, Least(high, t)));
        const bool counts = (mask >> part & 1) != 0;
        const u32 here = static_cast<u32>(kAll) << (part * kBits);
        sum += counts ? bits : 0;
        merged = counts ? (merged & ~here) | (bits << (part * kBits) & here)
                        : merged;
      }
      return adds ? sum : merged;
    });
    return i + 1;
  }
};

}  // namespace

HandlerPair PickVAdd(const PickKey&) {
  return Pair<VideoScalar<VideoOp::kAdd>>();
}
HandlerPair PickVSub(const PickKey&) {
  return Pair<VideoScalar<VideoOp::kSub>>();
}
HandlerPair PickVAbsDiff(const PickKey&) {
  return Pair<VideoScalar<VideoOp::kAbsDiff>>();
}
HandlerPair PickVMin(const PickKey&) {
  return Pair<VideoScalar<VideoOp::kMin>>();
}
HandlerPair PickVMax(const PickKey&) {
  return Pair<VideoScalar<VideoOp::kMax>>();
}
HandlerPair PickVSet(const PickKey&) {
  return Pair<VideoScalar<VideoOp::kSet>>();
}
HandlerPair PickVShl(const PickKey&) { return Pair<VideoShift<true>>(); }
HandlerPair PickVShr(const PickKey&) { return Pair<VideoShift<false>>(); }
HandlerPair PickVMad(const PickKey&) { return Pair<VideoMad>(); }

#define POS_SIMD(name, op)                     \
  HandlerPair PickV##name##2(const PickKey&) { \
    return Pair<VideoSimd<VideoOp::op, 2>>();  \
  }                                            \
  HandlerPair PickV##name##4(const PickKey&) { \
    return Pair<VideoSimd<VideoOp::op, 4>>();  \
  }
POS_SIMD(Add, kAdd)
POS_SIMD(Sub, kSub)
POS_SIMD(Avrg, kAverage)
POS_SIMD(AbsDiff, kAbsDiff)
POS_SIMD(Min, kMin)
POS_SIMD(Max, kMax)
POS_SIMD(Set, kSet)
#undef POS_SIMD

}  // namespace pos::ptx::POS_PTX_ISA
