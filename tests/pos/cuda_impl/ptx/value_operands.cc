// Operands worth trying: the edges of each type, all pairs of them where there
// are two, and random bits.
#include <array>
#include <random>
#include <span>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/ptx/opcodes.h"
#include "reference.h"
#include "value_runner.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

constexpr u64 kIntegers[] = {0,
                             1,
                             2,
                             3,
                             7,
                             0x7f,
                             0x80,
                             0xff,
                             0x7fff,
                             0x8000,
                             0xffff,
                             0x10001,
                             0x7fffffff,
                             0x80000000,
                             0xfffffffe,
                             0xffffffff,
                             0x7fffffffffffffff,
                             0x8000000000000000,
                             0xfffffffffffffffe,
                             0xffffffffffffffff,
                             0x0123456789abcdef};
constexpr u64 kAmounts[] = {0,   1,   5,       8,          15,         16,
                            17,  31,  32,      33,         40,         63,
                            64,  65,  127,     128,        0x7fffffff, 255,
                            256, 257, 0x10000, 0xffffffe0, 0xffffffff};
constexpr u64 kFloats[] = {
    0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x3f000000, 0x3fc00000,
    0x40200000, 0xc0200000, 0x7f7fffff, 0xff7fffff, 0x00800000, 0x80800000,
    0x00800001, 0x007fffff, 0x00000001, 0x80000001, 0x00400000, 0x7f800000,
    0xff800000, 0x7fc00000, 0x7f800001, 0xffc12345, 0x4f000000, 0xcf000000,
    0x5f000000, 0x40490fdb, 0x3f7fffff, 0x3f800001, 0x42c80000, 0x7e800001};
constexpr u64 kDoubles[] = {
    0x0000000000000000, 0x8000000000000000, 0x3ff0000000000000,
    0xbff0000000000000, 0x3fe0000000000000, 0x3ff8000000000000,
    0x4004000000000000, 0xc004000000000000, 0x7fefffffffffffff,
    0xffefffffffffffff, 0x0010000000000000, 0x000fffffffffffff,
    0x0000000000000001, 0x8000000000000001, 0x7ff0000000000000,
    0xfff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001,
    0xfff8000012345678, 0x41e0000000000000, 0xc1e0000000000000,
    0x43e0000000000000, 0xc3e0000000000000, 0x400921fb54442d18,
    0x3feffffffffffff8, 0x47efffffefffffff, 0x47effffff0000000,
    0x36a0000000000000, 0x3690000000000001, 0x3e70000000000000};
constexpr u64 kHalves[] = {0x0000, 0x8000, 0x3c00, 0xbc00, 0x3800, 0x3e00,
                           0x7bff, 0xfbff, 0x0400, 0x03ff, 0x0001, 0x8001,
                           0x7c00, 0xfc00, 0x7e00, 0x7c01, 0x3f80, 0xbf80,
                           0x7f80, 0xff80, 0x7fc0, 0x7f7f, 0x0080, 0x007f};
constexpr u64 kBooleans[] = {0, 1};

// Two numbers in one register.
std::vector<u64> Pairs(std::span<const u64> edges, unsigned shift) {
  std::vector<u64> pairs;
  for (std::size_t i = 0; i < edges.size(); ++i) {
    pairs.push_back(edges[i] | edges[(5 * i + 7) % edges.size()] << shift);
  }
  return pairs;
}
// Every byte, in both halves.
std::vector<u64> BytePairs() {
  std::vector<u64> pairs;
  for (u64 i = 0; i < 256; ++i) pairs.push_back(i | (i * 37 + 11) % 256 << 8);
  return pairs;
}

std::span<const u64> EdgesOf(char letter, Type type) {
  if (letter == 'p') return kBooleans;
  if (letter == 'i') return kAmounts;
  static const std::vector<u64> kHalfPairs = Pairs(kHalves, 16);
  static const std::vector<u64> kFloatPairs = Pairs(kFloats, 32);
  static const std::vector<u64> kBytePairs = BytePairs();
  if (letter == 'h') return kBytePairs;
  switch (type) {
    case Type::kF16x2:
    case Type::kBf16x2:
      return kHalfPairs;
    case Type::kF32x2:
      return kFloatPairs;
    case Type::kUe8m0x2:
      return kBytePairs;
    case Type::kF32:
      return kFloats;
    case Type::kF64:
      return kDoubles;
    case Type::kF16:
    case Type::kBf16:
      return kHalves;
    default:
      return kIntegers;
  }
}

struct Column {
  std::span<const u64> edges;
  u64 mask = ~u64{0};
  bool predicate = false;
  Type near = Type::kNone;  // f16, bf16 or f32: numbers about one are wanted
};

Type NearOf(const OpcodeInfo& op, Type type) {
  switch (type) {
    case Type::kF16:
    case Type::kF16x2:
      return Type::kF16;
    case Type::kBf16:
    case Type::kBf16x2:
      return Type::kBf16;
    case Type::kF32:  // to what is narrower
      return op.key.types > 1 && TypeBytes(op.key.type[0]) != 8 &&
                     op.key.type[0] != Type::kF32
                 ? Type::kF32
                 : Type::kNone;
    default:
      return Type::kNone;
  }
}

// Numbers not far from one with few bits, whose sums and products are often
// half-way between two of the format.
template <typename Random>
u64 NearOne(Type type, Random& random) {
  if (type == Type::kF32) {
    const u64 fraction = random() & (random() % 2 == 0 ? 0x7ff000 : 0x7fffff);
    return (random() & 1) << 31 | (127 - 28 + random() % 48) << 23 |
           (random() % 4 == 0 ? fraction & 0x700000 : fraction);
  }
  u64 pair = 0;
  for (int h = 0; h < 2; ++h) {
    const u64 few = random() % 2 == 0 ? random() & random() : random();
    const u64 one =
        type == Type::kF16
            ? (random() & 1) << 15 | (4 + random() % 22) << 10 | (few & 0x3ff)
            : (random() & 1) << 15 | (118 + random() % 18) << 7 | (few & 0x7f);
    pair = pair << 16 | one;
  }
  return pair;
}

std::vector<Column> ColumnsOf(const OpcodeInfo& op) {
  std::string_view letters = GetOpcodeRow(op.row).operands;
  letters.remove_prefix(letters.find(':') + 1);
  std::vector<Column> columns;
  for (const char letter : letters) {
    if (letter == '[') {
      if (TakesOptional(op) || IsVideo(op)) continue;
      break;
    }
    if (letter == ']') break;
    Type type = Type::kNone;
    if (letter == 't') type = op.key.type[0];
    if (letter == 'u') type = op.key.type[1];
    Column column;
    column.edges = EdgesOf(letter, type);
    column.predicate = letter == 'p';
    column.near = NearOf(op, type);
    std::uint32_t bytes = letter == 'i'   ? 4
                          : letter == 'h' ? 2
                                          : TypeBytes(type);
    // Words of which video instructions take parts.
    if (IsVideo(op)) column.edges = kIntegers;
    if (letter == 'w') bytes = 2 * TypeBytes(op.key.type[0]);
    if (bytes != 0 && bytes < 8) column.mask = (u64{1} << (8 * bytes)) - 1;
    if (column.predicate) column.mask = 1;
    columns.push_back(column);
  }
  return columns;
}

}  // namespace

Rows MakeOperands(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  const std::vector<Column> columns = ColumnsOf(op);
  std::mt19937_64 random(17);
  Rows rows;
  bool near = false;
  for (const Column& column : columns) {
    near = near || column.near != Type::kNone;
  }
  const auto any = [&random](const Column& column) {
    if (column.near != Type::kNone && random() % 2 == 0) {
      return NearOne(column.near, random) & column.mask;
    }
    const bool edge = random() % 4 != 0;
    return (edge ? column.edges[random() % column.edges.size()] : random()) &
           column.mask;
  };
  if (columns.size() == 1) {
    for (const u64 edge : columns[0].edges) {
      rows.push_back({edge & columns[0].mask});
    }
  } else {
    for (const u64 a : columns[0].edges) {
      for (const u64 b : columns[1].edges) {
        std::vector<u64> row{a & columns[0].mask, b & columns[1].mask};
        for (std::size_t i = 2; i < columns.size(); ++i) {
          row.push_back(any(columns[i]));
        }
        rows.push_back(std::move(row));
      }
    }
  }
  // The last warp is not full.
  const std::size_t more = near ? 1024 : 128;
  const std::size_t count = (rows.size() + more) / 128 * 128 + 19;
  while (rows.size() < count) {
    std::vector<u64> row;
    for (const Column& column : columns) row.push_back(any(column));
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace pos::ptx::testing
