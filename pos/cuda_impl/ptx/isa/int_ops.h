// Integer arithmetic of one lane, for any width.
//
// Everything is computed on unsigned types, so that overflow wraps; signed
// variants differ only where the sign matters.
#ifndef POS_CUDA_IMPL_PTX_ISA_INT_OPS_H_
#define POS_CUDA_IMPL_PTX_ISA_INT_OPS_H_

#include "pos/cuda_impl/ptx/isa/lanes.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

template <typename T>
struct SignedOf;
template <>
struct SignedOf<u8> {
  using type = s8;
};
template <>
struct SignedOf<u16> {
  using type = s16;
};
template <>
struct SignedOf<u32> {
  using type = s32;
};
template <>
struct SignedOf<u64> {
  using type = s64;
};
template <typename T>
using S = typename SignedOf<T>::type;

template <typename T>
struct WideOf;
template <>
struct WideOf<u16> {
  using type = u32;
};
template <>
struct WideOf<u32> {
  using type = u64;
};
template <>
struct WideOf<u64> {
  using type = u128;
};
template <typename T>
using W = typename WideOf<T>::type;

// a * b without int promotion, which overflows for 16 bits.
template <typename T>
POS_INLINE T Mul(T a, T b) {
  return static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b));
}
template <>
POS_INLINE u32 Mul(u32 a, u32 b) {
  return a * b;
}

struct Add {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return static_cast<T>(a + b);
  }
};
struct Sub {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return static_cast<T>(a - b);
  }
};
struct MulLo {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return Mul<T>(a, b);
  }
};
struct MadLo {
  template <typename T>
  static POS_INLINE T Do(T a, T b, T c) {
    return static_cast<T>(Mul<T>(a, b) + c);
  }
};
struct Neg {
  template <typename T>
  static POS_INLINE T Do(T a) {
    return static_cast<T>(0 - a);
  }
};
struct Cnot {
  template <typename T>
  static POS_INLINE T Do(T a) {
    return a == 0 ? T{1} : T{0};
  }
};
struct Abs {
  template <typename T>
  static POS_INLINE T Do(T a) {
    return static_cast<S<T>>(a) < 0 ? static_cast<T>(0 - a) : a;
  }
};
struct MinU {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return a < b ? a : b;
  }
};
struct MaxU {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return a > b ? a : b;
  }
};
struct MinS {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return static_cast<S<T>>(a) < static_cast<S<T>>(b) ? a : b;
  }
};
struct MaxS {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return static_cast<S<T>>(a) > static_cast<S<T>>(b) ? a : b;
  }
};
// .relu: the result is not below zero.
template <typename Op>
struct Relu {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return MaxS::Do<T>(Op::template Do<T>(a, b), 0);
  }
};

template <bool kSigned>
struct MulHi {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    constexpr unsigned kBits = sizeof(T) * 8;
    if constexpr (sizeof(T) == 8) {
      u64 high = static_cast<u64>((static_cast<u128>(a) * b) >> kBits);
      if constexpr (kSigned) {
        high -= static_cast<s64>(a) < 0 ? b : 0;
        high -= static_cast<s64>(b) < 0 ? a : 0;
      }
      return high;
    } else if constexpr (kSigned && sizeof(T) == 2) {
      // From the unsigned product: g++ 12 turns a vector of signed ones into
      // PMULHUW.
      u32 high = (static_cast<u32>(a) * b) >> kBits;
      high -= static_cast<s16>(a) < 0 ? b : 0;
      high -= static_cast<s16>(b) < 0 ? a : 0;
      return static_cast<T>(high);
    } else if constexpr (kSigned) {
      return static_cast<T>((static_cast<s64>(static_cast<S<T>>(a)) *
                             static_cast<s64>(static_cast<S<T>>(b))) >>
                            kBits);
    } else {
      return static_cast<T>((static_cast<u64>(a) * b) >> kBits);
    }
  }
};
template <bool kSigned>
struct MadHi {
  template <typename T>
  static POS_INLINE T Do(T a, T b, T c) {
    return static_cast<T>(MulHi<kSigned>::template Do<T>(a, b) + c);
  }
};
template <bool kSigned, typename T>
POS_INLINE W<T> Widen(T a) {
  if constexpr (kSigned)
    return static_cast<W<T>>(static_cast<S<W<T>>>(static_cast<S<T>>(a)));
  return static_cast<W<T>>(a);
}
template <bool kSigned>
struct MulWide {
  template <typename T>
  static POS_INLINE W<T> Do(T a, T b) {
    return static_cast<W<T>>(Widen<kSigned, T>(a) * Widen<kSigned, T>(b));
  }
};
template <bool kSigned>
struct MadWide {
  template <typename T>
  static POS_INLINE W<T> Do(T a, T b, W<T> c) {
    return static_cast<W<T>>(MulWide<kSigned>::template Do<T>(a, b) + c);
  }
};

// The signed result that the exact sum clamps to.
template <bool kSubtract>
struct AddSat {
  static POS_INLINE u32 Do(u32 a, u32 b) {
    const s64 left = static_cast<s32>(a);
    const s64 right = static_cast<s32>(b);
    const s64 sum = kSubtract ? left - right : left + right;
    const s64 low = sum < -2147483648ll ? -2147483648ll : sum;
    return static_cast<u32>(
        static_cast<s32>(low > 2147483647ll ? 2147483647ll : low));
  }
};
struct MadHiSat {
  static POS_INLINE u32 Do(u32 a, u32 b, u32 c) {
    return AddSat<false>::Do(MulHi<true>::Do<u32>(a, b), c);
  }
};

// Division by zero gives all ones, as the hardware does; INT_MIN / -1 wraps.
template <bool kSigned, bool kRemainder>
struct Div {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    if (b == 0) return kRemainder ? a : static_cast<T>(~T{0});
    if constexpr (!kSigned) {
      return kRemainder ? static_cast<T>(a % b) : static_cast<T>(a / b);
    }
    if (static_cast<S<T>>(b) == -1)
      return kRemainder ? T{0} : static_cast<T>(0 - a);
    const S<T> l = static_cast<S<T>>(a);
    const S<T> r = static_cast<S<T>>(b);
    return kRemainder ? static_cast<T>(l % r) : static_cast<T>(l / r);
  }
};

template <bool kSigned>
struct Sad {
  template <typename T>
  static POS_INLINE T Do(T a, T b, T c) {
    const bool less =
        kSigned ? static_cast<S<T>>(a) < static_cast<S<T>>(b) : a < b;
    return static_cast<T>((less ? b - a : a - b) + c);
  }
};
// Handlers for the width of type 0 of the key.
template <typename Op>
HandlerPair Unary16To64(const PickKey& k) {
  switch (Bytes(k.type[0])) {
    case 2:
      return Pair<Unary<Op, u16, u16>>();
    case 4:
      return Pair<Unary<Op, u32, u32>>();
    case 8:
      return Pair<Unary<Op, u64, u64>>();
    default:
      return {};
  }
}
template <typename Op>
HandlerPair Binary16To64(const PickKey& k) {
  switch (Bytes(k.type[0])) {
    case 2:
      return Pair<Binary<Op, u16, u16, u16>>();
    case 4:
      return Pair<Binary<Op, u32, u32, u32>>();
    case 8:
      return Pair<Binary<Op, u64, u64, u64>>();
    default:
      return {};
  }
}
template <typename Op>
HandlerPair Ternary16To64(const PickKey& k) {
  switch (Bytes(k.type[0])) {
    case 2:
      return Pair<Ternary<Op, u16, u16, u16, u16>>();
    case 4:
      return Pair<Ternary<Op, u32, u32, u32, u32>>();
    case 8:
      return Pair<Ternary<Op, u64, u64, u64, u64>>();
    default:
      return {};
  }
}
template <typename Op>
HandlerPair Shift16To64(const PickKey& k) {
  switch (Bytes(k.type[0])) {
    case 2:
      return Pair<Binary<Op, u16, u16, u32>>();
    case 4:
      return Pair<Binary<Op, u32, u32, u32>>();
    case 8:
      return Pair<Binary<Op, u64, u64, u32>>();
    default:
      return {};
  }
}
template <typename Op>
HandlerPair Count32Or64(const PickKey& k) {
  return Bytes(k.type[0]) == 8 ? Pair<Unary<Op, u32, u64>>()
                               : Pair<Unary<Op, u32, u32>>();
}

}  // namespace
}  // namespace pos::ptx::POS_PTX_ISA

#endif  // POS_CUDA_IMPL_PTX_ISA_INT_OPS_H_
