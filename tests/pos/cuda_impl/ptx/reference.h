// What instructions compute, one thread at a time, written from the PTX ISA's
// description and without anything of the interpreter's arithmetic: wide
// integers and the host's scalar floating point in the wanted rounding mode.
//
// Threads: pure functions (the rounding mode is the caller's again on return).
#ifndef TESTS_POS_CUDA_IMPL_PTX_REFERENCE_H_
#define TESTS_POS_CUDA_IMPL_PTX_REFERENCE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "pos/cuda_impl/ptx/opcodes.h"

namespace pos::ptx::testing {

// A result and how far from it is right.
struct Want {
  std::uint64_t bits = 0;
  bool anything = false;  // the ISA leaves it open
  bool any_nan = false;   // which NaN is left open
  // Bits that the ISA leaves open.
  std::uint64_t open = 0;
  // Every 16 bits may be this many numbers away.
  std::uint64_t ulps = 0;
  // Of approximations: `value` is exact, the result may be off by
  // relative * |value| + absolute.
  bool approximate = false;
  double value = 0;
  double relative = 0;
  double absolute = 0;
  // Second destination, a predicate.
  std::optional<bool> predicate;
};

using Sources = std::span<const std::uint64_t>;

// Sources are register contents, predicates 0 or 1. nullopt when there is no
// reference for the instruction: a row of opcodes.def that nobody tests.
std::optional<Want> Reference(const OpcodeInfo& opcode, Sources in);
std::optional<Want> ReferenceInt(const OpcodeInfo& opcode, Sources in);
std::optional<Want> ReferenceBits(const OpcodeInfo& opcode, Sources in);
std::optional<Want> ReferenceFloat(const OpcodeInfo& opcode, Sources in);
std::optional<Want> ReferenceApprox(const OpcodeInfo& opcode, Sources in);
std::optional<Want> ReferenceCompare(const OpcodeInfo& opcode, Sources in);
std::optional<Want> ReferenceHalf(const OpcodeInfo& opcode, Sources in);
std::optional<Want> ReferenceNarrow(const OpcodeInfo& opcode, Sources in);
Want ReferenceCvt(const OpcodeInfo& opcode, std::uint64_t in);

// What stands before and after the operands of a video instruction,
// destination first: "", ".h1", ".b3210", "-", "-.b0".
using VideoMarks = std::span<const std::string>;
std::optional<Want> ReferenceVideo(const OpcodeInfo& opcode, Sources in,
                                   VideoMarks marks);
bool IsVideo(const OpcodeInfo& opcode);

// Whether operands in brackets in opcodes.def are there.
bool TakesOptional(const OpcodeInfo& opcode);

// Patterns in opcodes.def are generous; this says what PTX has.
bool Exists(const OpcodeInfo& opcode);

// `bits` as a number of the integer type.
__extension__ using Wide = __int128;
Wide IntegerOf(std::uint64_t bits, Type type);
std::uint64_t CutTo(Wide value, std::uint32_t bytes);
// FE_TONEAREST … by the rounding modifier, to nearest without one.
int RoundingModeOf(const OpcodeInfo& opcode);
float FlushSubnormal(float value);

}  // namespace pos::ptx::testing

#endif  // TESTS_POS_CUDA_IMPL_PTX_REFERENCE_H_
