// Operands worth trying: the edges of each type, all pairs of them where there
// are two, and random bits.
#include <array>
#include <random>
#include <span>
#include <string_view>

#include "pos/cuda_impl/ptx/opcodes.h"
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

std::span<const u64> EdgesOf(char letter, Type type) {
  if (letter == 'p') return kBooleans;
  if (letter == 'i') return kAmounts;
  switch (type) {
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
};

std::vector<Column> ColumnsOf(const OpcodeInfo& op) {
  std::string_view letters = GetOpcodeRow(op.row).operands;
  letters.remove_prefix(letters.find(':') + 1);
  std::vector<Column> columns;
  for (const char letter : letters) {
    if (letter == '[') {
      if (op.Has("and") || op.Has("or") || op.Has("xor")) continue;
      break;
    }
    if (letter == ']') break;
    Type type = Type::kNone;
    if (letter == 't') type = op.key.type[0];
    if (letter == 'u') type = op.key.type[1];
    Column column;
    column.edges = EdgesOf(letter, type);
    column.predicate = letter == 'p';
    std::uint32_t bytes = letter == 'i' ? 4 : TypeBytes(type);
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
  const auto any = [&random](const Column& column) {
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
  const std::size_t count = (rows.size() + 128) / 128 * 128 + 19;
  while (rows.size() < count) {
    std::vector<u64> row;
    for (const Column& column : columns) row.push_back(any(column));
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace pos::ptx::testing
