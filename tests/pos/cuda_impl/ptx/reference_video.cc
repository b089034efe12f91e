// Video instructions, step by step as chapter "Video Instructions" of the PTX
// ISA 9.0 describes them: extract, operate, saturate, then a second operation
// or merging.
#include <algorithm>
#include <array>
#include <string_view>

#include "reference.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

bool Signed(Type type) { return ClassOf(type) == TypeClass::kSigned; }

// `bits` bits of `word` from `at` on.
Wide Field(u64 word, unsigned at, unsigned bits, bool is_signed) {
  const auto field = static_cast<Wide>(word >> at & ((u64{1} << bits) - 1));
  const bool negative = is_signed && (field >> (bits - 1) & 1) != 0;
  return negative ? field - (Wide{1} << bits) : field;
}

// Where ".h1" lies in a word; all of it for "".
struct Place {
  unsigned at = 0;
  unsigned bits = 32;
};
Place PlaceOf(std::string_view mark) {
  if (mark.empty()) return {};
  const auto number = static_cast<unsigned>(mark.back() - '0');
  return mark[1] == 'b' ? Place{8 * number, 8} : Place{16 * number, 16};
}

Wide Select(u64 word, std::string_view mark, Type type) {
  const Place place = PlaceOf(mark);
  return Field(word, place.at, place.bits, Signed(type));
}

Wide Clamp(Wide x, unsigned bits, bool is_signed) {
  const Wide high = (Wide{1} << (is_signed ? bits - 1 : bits)) - 1;
  return std::clamp(x, is_signed ? -high - 1 : Wide{0}, high);
}

bool Compare(const OpcodeInfo& op, Wide a, Wide b) {
  if (op.Has("eq")) return a == b;
  if (op.Has("ne")) return a != b;
  if (op.Has("lt")) return a < b;
  if (op.Has("le")) return a <= b;
  return op.Has("gt") ? a > b : a >= b;
}

// `name` has no digit at its end.
Wide Operate(const OpcodeInfo& op, std::string_view name, Wide a, Wide b) {
  if (name == "vadd") return a + b;
  if (name == "vsub") return a - b;
  if (name == "vabsdiff") return a > b ? a - b : b - a;
  if (name == "vmin") return std::min(a, b);
  if (name == "vmax") return std::max(a, b);
  if (name == "vavrg") return (a + b + (a + b >= 0 ? 1 : 0)) >> 1;
  if (name == "vset") return Compare(op, a, b) ? 1 : 0;
  const Wide n = op.Has("wrap") ? b & 31 : std::min(b, Wide{32});
  if (name == "vshr") return a >> static_cast<int>(n);
  return a * (Wide{1} << static_cast<int>(n));  // vshl
}

u64 MultiplyAdd(const OpcodeInfo& op, Sources in, VideoMarks marks) {
  const bool minus_a = marks[1].starts_with('-');
  const bool minus_b = marks[2].starts_with('-');
  const bool minus_c = marks[3].starts_with('-');
  const auto part = [](std::string_view mark) {
    return mark.starts_with('-') ? mark.substr(1) : mark;
  };
  Wide sum = Select(in[0], part(marks[1]), op.key.type[1]) *
             Select(in[1], part(marks[2]), op.key.type[2]);
  const bool is_signed = Signed(op.key.type[1]) || Signed(op.key.type[2]) ||
                         minus_a != minus_b || minus_c;
  if (minus_a != minus_b) sum = -sum;
  const u64 c = minus_c ? ~in[2] : in[2];
  sum += Field(c, 0, 32, is_signed);
  if (op.Has("po") || minus_c) sum += 1;
  if (op.Has("shr7")) sum >>= 7;
  if (op.Has("shr15")) sum >>= 15;
  if (op.Has("sat")) sum = Clamp(sum, 32, is_signed);
  return CutTo(sum, 4);
}

u64 Scalar(const OpcodeInfo& op, Sources in, VideoMarks marks) {
  const bool compares = op.base == "vset";
  const std::size_t from = compares ? 0 : 1;
  const Wide a = Select(in[0], marks[1], op.key.type[from]);
  const Wide b = Select(in[1], marks[2], op.key.type[from + 1]);
  const bool is_signed = !compares && Signed(op.key.type[0]);
  const Place place = PlaceOf(marks[0]);
  Wide result = Operate(op, op.base, a, b);
  if (op.Has("sat")) result = Clamp(result, place.bits, is_signed);
  // It has the destination's type from here on.
  result = Field(CutTo(result, 4), 0, 32, is_signed);
  if (in.size() < 3) return CutTo(result, 4);
  const Wide c = Field(in[2], 0, 32, is_signed);
  if (op.Has("add")) result += c;
  if (op.Has("min")) result = std::min(result, c);
  if (op.Has("max")) result = std::max(result, c);
  if (place.bits == 32) return CutTo(result, 4);
  const u64 mask = ((u64{1} << place.bits) - 1) << place.at;
  return (CutTo(result, 4) << place.at & mask) | (in[2] & ~mask);
}

u64 Simd(const OpcodeInfo& op, Sources in, VideoMarks marks) {
  const unsigned parts = op.base.back() == '2' ? 2 : 4;
  const unsigned bits = 32 / parts;
  const bool compares = op.key.types == 2;
  const std::size_t from = compares ? 0 : 1;
  const u64 both = in[1] << 32 | in[0];
  const auto element = [&](std::string_view mark, unsigned i, unsigned first,
                           Type type) {
    const unsigned which =
        mark.empty() ? first + i
                     : static_cast<unsigned>(mark[mark.size() - 1 - i] - '0');
    return Field(both, which * bits, bits, Signed(type));
  };
  u64 merged = 0;
  Wide sum = static_cast<Wide>(in[2]);
  for (unsigned i = 0; i < parts; ++i) {
    const Wide a = element(marks[1], i, 0, op.key.type[from]);
    const Wide b = element(marks[2], i, parts, op.key.type[from + 1]);
    Wide t = Operate(op, op.base.substr(0, op.base.size() - 1), a, b);
    if (op.Has("sat")) t = Clamp(t, bits, Signed(op.key.type[0]));
    const bool counts =
        marks[0].empty() ||
        marks[0].find(static_cast<char>('0' + i)) != std::string_view::npos;
    if (counts) sum += t;
    const u64 mask = ((u64{1} << bits) - 1) << (i * bits);
    merged |= counts ? CutTo(t, 4) << (i * bits) & mask : in[2] & mask;
  }
  return op.Has("add") ? CutTo(sum, 4) : merged;
}

}  // namespace

bool IsVideo(const OpcodeInfo& op) {
  return op.row != OpcodeInfo::kNoRow &&
         GetOpcodeRow(op.row).shape == Shape::kVideo;
}

std::optional<Want> ReferenceVideo(const OpcodeInfo& op, Sources in,
                                   VideoMarks marks) {
  if (!IsVideo(op)) return std::nullopt;
  Want want;
  if (op.base == "vmad") {
    want.bits = MultiplyAdd(op, in, marks);
  } else if (op.base.back() == '2' || op.base.back() == '4') {
    want.bits = Simd(op, in, marks);
  } else {
    want.bits = Scalar(op, in, marks);
  }
  return want;
}

}  // namespace pos::ptx::testing
