// Binary numbers of any format, exactly: an integer times a power of two, and
// its rounding to a format by integer arithmetic.
//
// Threads: pure functions.
#ifndef TESTS_POS_CUDA_IMPL_PTX_EXACT_H_
#define TESTS_POS_CUDA_IMPL_PTX_EXACT_H_

#include <cstdint>

#include "pos/cuda_impl/ptx/types.h"
#include "reference.h"

namespace pos::ptx::testing {

struct Exact {
  bool nan = false;
  bool infinite = false;
  bool negative = false;
  Wide size = 0;  // the value is size * 2^scale, negated if `negative`
  int scale = 0;

  [[nodiscard]] bool zero() const { return !nan && !infinite && size == 0; }
  [[nodiscard]] double value() const;
};

// A format with subnormals: `bits` of significand with the implicit one, and
// the exponent of the smallest normal number.
struct Grid {
  int bits;
  int min_exponent;
};
// Of f16, bf16, f32, tf32, and of one element of the packed formats.
Grid GridOf(Type type);

enum class Rounding { kNearest, kZero, kAway };  // kAway: nearest, ties away

// f16, bf16 or f32. A type of two stands for one of them.
Exact DecodeExact(Type type, std::uint64_t bits);
// Exponent and fraction fields of the rounded size; they go on beyond the
// format's last finite number.
std::uint64_t RoundSize(const Exact& x, Grid grid, Rounding rounding);

Exact Sum(const Exact& a, const Exact& b);
Exact Product(const Exact& a, const Exact& b);

bool IsBrain(Type type);  // bf16, bf16x2
bool IsHalf(Type type);   // these and f16, f16x2

}  // namespace pos::ptx::testing

#endif  // TESTS_POS_CUDA_IMPL_PTX_EXACT_H_
