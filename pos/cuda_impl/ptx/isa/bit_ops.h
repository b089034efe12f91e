// Logic, shifts and bit fields of one lane, for any width.
#ifndef POS_CUDA_IMPL_PTX_ISA_BIT_OPS_H_
#define POS_CUDA_IMPL_PTX_ISA_BIT_OPS_H_

#include "pos/cuda_impl/ptx/isa/int_ops.h"

namespace pos::ptx::POS_PTX_ISA {
namespace {

struct And {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <typename T>
  static POS_INLINE T Do(T a, T b) {
    return static_cast<T>(a ^ b);
  }
};
struct Not {
  template <typename T>
  static POS_INLINE T Do(T a) {
    return static_cast<T>(~a);
  }
};
struct Move {
  template <typename T>
  static POS_INLINE T Do(T a) {
    return a;
  }
};
// Shift amounts beyond the width shift everything out.
struct Shl {
  template <typename T>
  static POS_INLINE T Do(T a, u32 n) {
    constexpr u32 kBits = sizeof(T) * 8;
    const T shifted = static_cast<T>(static_cast<u64>(a) << (n & 63));
    return n < kBits ? shifted : T{0};
  }
};
template <>
POS_INLINE u32 Shl::Do(u32 a, u32 n) {
  return n < 32 ? a << (n & 31) : 0;
}
struct ShrU {
  template <typename T>
  static POS_INLINE T Do(T a, u32 n) {
    constexpr u32 kBits = sizeof(T) * 8;
    const T shifted = static_cast<T>(a >> (n & (kBits - 1)));
    return n < kBits ? shifted : T{0};
  }
};
struct ShrS {
  template <typename T>
  static POS_INLINE T Do(T a, u32 n) {
    constexpr u32 kBits = sizeof(T) * 8;
    const u32 by = n < kBits ? n : kBits - 1;
    return static_cast<T>(static_cast<S<T>>(a) >> by);
  }
};

template <bool kLeftward, bool kWraps>
struct Shf {
  static POS_INLINE u32 Do(u32 low, u32 high, u32 amount) {
    const u32 clamped = amount < 32 ? amount : 32;
    const u32 n = kWraps ? amount & 31 : clamped;
    const u64 both = static_cast<u64>(high) << 32 | low;
    return kLeftward ? static_cast<u32>((both << n) >> 32)
                     : static_cast<u32>(both >> n);
  }
};

struct Lop3 {
  static POS_INLINE u32 Do(u32 a, u32 b, u32 c, u32 table) {
    u32 result = 0;
    result |= (0 - (table & 1)) & ~a & ~b & ~c;
    result |= (0 - (table >> 1 & 1)) & ~a & ~b & c;
    result |= (0 - (table >> 2 & 1)) & ~a & b & ~c;
    result |= (0 - (table >> 3 & 1)) & ~a & b & c;
    result |= (0 - (table >> 4 & 1)) & a & ~b & ~c;
    result |= (0 - (table >> 5 & 1)) & a & ~b & c;
    result |= (0 - (table >> 6 & 1)) & a & b & ~c;
    result |= (0 - (table >> 7 & 1)) & a & b & c;
    return result;
  }
};

struct Popc {
  template <typename T>
  static POS_INLINE u32 Do(T a) {
    u64 v = a;
    v = v - (v >> 1 & 0x5555555555555555ull);
    v = (v & 0x3333333333333333ull) + (v >> 2 & 0x3333333333333333ull);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0full;
    v += v >> 8;
    v += v >> 16;
    v += v >> 32;
    return static_cast<u32>(v & 127);
  }
};
struct Clz {
  template <typename T>
  static POS_INLINE u32 Do(T a) {
    constexpr u32 kBits = sizeof(T) * 8;
    if constexpr (sizeof(T) == 8) {
      return a == 0 ? kBits : static_cast<u32>(__builtin_clzll(a));
    } else {
      return a == 0 ? kBits : static_cast<u32>(__builtin_clz(a));
    }
  }
};
struct Brev {
  template <typename T>
  static POS_INLINE T Do(T a) {
    u64 v = a;
    v = (v >> 1 & 0x5555555555555555ull) | (v & 0x5555555555555555ull) << 1;
    v = (v >> 2 & 0x3333333333333333ull) | (v & 0x3333333333333333ull) << 2;
    v = (v >> 4 & 0x0f0f0f0f0f0f0f0full) | (v & 0x0f0f0f0f0f0f0f0full) << 4;
    v = __builtin_bswap64(v);
    return static_cast<T>(v >> (64 - sizeof(T) * 8));
  }
};
// The highest bit that differs from the sign; all ones when there is none.
template <bool kSigned, bool kAsShift>
struct Bfind {
  template <typename T>
  static POS_INLINE u32 Do(T a) {
    const T v = kSigned && static_cast<S<T>>(a) < 0 ? static_cast<T>(~a) : a;
    const u32 position = sizeof(T) * 8 - 1 - Clz::Do<T>(v);
    if (v == 0) return ~0u;
    return kAsShift ? sizeof(T) * 8 - 1 - position : position;
  }
};

template <typename T>
POS_INLINE T Ones(u32 count) {
  constexpr u32 kBits = sizeof(T) * 8;
  return count >= kBits ? static_cast<T>(~T{0})
                        : static_cast<T>((T{1} << (count & (kBits - 1))) - 1);
}
template <bool kSigned>
struct Bfe {
  template <typename T>
  static POS_INLINE T Do(T a, u32 position, u32 length) {
    constexpr u32 kBits = sizeof(T) * 8;
    const u32 pos = position & 255;
    const u32 len = length & 255;
    const T sign_at = pos + len < kBits + 1 ? pos + len - 1 : kBits - 1;
    const bool negative =
        kSigned && len != 0 && (a >> (sign_at & (kBits - 1)) & 1) != 0;
    const T mask = Ones<T>(len);
    const T field =
        pos >= kBits ? T{0} : static_cast<T>(a >> (pos & (kBits - 1)));
    // Bits beyond the top of `a` are copies of the sign, too.
    const T beyond =
        pos + len > kBits
            ? static_cast<T>(~Ones<T>(pos >= kBits ? 0 : kBits - pos))
            : T{0};
    const T filled = negative ? static_cast<T>(field | beyond | ~mask)
                              : static_cast<T>(field & mask);
    return filled;
  }
};
struct Bfi {
  template <typename T>
  static POS_INLINE T Do(T a, T b, u32 position, u32 length) {
    constexpr u32 kBits = sizeof(T) * 8;
    const u32 pos = position & 255;
    const T mask = pos >= kBits ? T{0}
                                : static_cast<T>(Ones<T>(length & 255)
                                                 << (pos & (kBits - 1)));
    const T field =
        pos >= kBits ? T{0} : static_cast<T>(a << (pos & (kBits - 1)));
    return static_cast<T>((field & mask) | (b & ~mask));
  }
};
template <bool kWraps>
struct Bmsk {
  static POS_INLINE u32 Do(u32 position, u32 length) {
    const u32 pos = kWraps ? position & 31 : position;
    const u32 len = kWraps ? length & 31 : length;
    return pos >= 32 ? 0 : Ones<u32>(len) << (pos & 31);
  }
};
template <bool kSigned, bool kWraps>
struct Szext {
  static POS_INLINE u32 Do(u32 a, u32 width) {
    const u32 n = kWraps ? width & 31 : width;
    const u32 low = a & Ones<u32>(n);
    if (n == 0) return 0;
    if (n >= 32) return a;
    return kSigned && (a >> (n - 1) & 1) != 0 ? low | ~Ones<u32>(n) : low;
  }
};
struct Slct {
  template <typename T>
  static POS_INLINE T Do(T a, T b, u32 c) {
    return static_cast<s32>(c) >= 0 ? a : b;
  }
};

}  // namespace
}  // namespace pos::ptx::POS_PTX_ISA

#endif  // POS_CUDA_IMPL_PTX_ISA_BIT_OPS_H_
