#include "random_writer.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <vector>

#include "pos/cuda_impl/ptx/opcodes.h"
#include "random_kernel.h"
#include "spellings.h"
#include "value_runner.h"

namespace pos::ptx::testing {
namespace {

bool Scalar(Type type) {
  switch (type) {
    case Type::kB16:
    case Type::kB32:
    case Type::kB64:
    case Type::kU8:
    case Type::kU16:
    case Type::kU32:
    case Type::kU64:
    case Type::kS8:
    case Type::kS16:
    case Type::kS32:
    case Type::kS64:
    case Type::kU16x2:
    case Type::kS16x2:
    case Type::kF32:
    case Type::kF64:
    case Type::kPred:
      return true;
    default:
      return false;
  }
}

bool Usable(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  if (op.Has("approx") || op.Has("full")) return false;
  for (std::uint8_t i = 0; i < op.key.types; ++i) {
    const Type type = op.key.type[i];
    const bool half = type == Type::kF16 || type == Type::kBf16;
    if (!Scalar(type) && !(half && op.base == "cvt")) return false;
  }
  return op.key.types != 0;
}

// By base, so that each comes as often as any other.
const std::vector<std::vector<std::string>>& Opcodes() {
  static const auto* const kAll = [] {
    std::map<std::string, std::vector<std::string>, std::less<>> by_base;
    for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
      if (!CanRunValues(row) || GetOpcodeRow(row).shape == Shape::kVideo) {
        continue;  // the machine has no selectors of bytes
      }
      for (const std::string& opcode : Spellings(row, 60)) {
        if (Usable(opcode)) {
          by_base[std::string(GetOpcodeRow(row).base)].push_back(opcode);
        }
      }
    }
    auto* all = new std::vector<std::vector<std::string>>;
    for (auto& [base, opcodes] : by_base) all->push_back(std::move(opcodes));
    return all;
  }();
  return *kAll;
}

constexpr std::array<const char*, 12> kIntegers = {
    "0",          "1",          "-1",  "2",    "31",    "32",
    "0x7fffffff", "0x80000000", "255", "-128", "32767", "0x12345678"};
constexpr std::array<const char*, 6> kFloats = {"0f00000000", "0f80000000",
                                                "0f3F800000", "0fBFC00000",
                                                "0f00000001", "0f7F7FFFFF"};
constexpr std::array<const char*, 6> kDoubles = {
    "0d0000000000000000", "0d8000000000000000", "0d3FF0000000000000",
    "0dBFF8000000000000", "0d0000000000000001", "0d7FEFFFFFFFFFFFFF"};

std::string Number(std::uint32_t n) { return std::to_string(n); }

std::uint32_t BytesOfLetter(char letter, const OpcodeInfo& op) {
  switch (letter) {
    case 'p':
    case 'P':
      return 0;
    case 'i':
      return 4;
    case 'u':
      return std::max(2u, TypeBytes(op.key.type[1]));
    case 'w':
      return 2 * TypeBytes(op.key.type[0]);
    default:
      return op.key.type[0] == Type::kPred
                 ? 0
                 : std::max(2u, TypeBytes(op.key.type[0]));
  }
}

}  // namespace

std::string Writer::NewLabel(std::string_view stem) {
  return "$" + std::string(stem) + "_" + Number(labels_++);
}

std::string Writer::Data(std::uint32_t bytes) {
  switch (bytes) {
    case 0:
      return "%p" + Number(Below(kDataPredicates));
    case 1:
    case 2:
      return "%h" + Number(Below(kDataRegisters16));
    case 4:
      return "%r" + Number(Below(kDataRegisters32));
    default:
      return "%d" + Number(Below(kDataRegisters64));
  }
}

std::string Writer::Guard() {
  if (!OneIn(4)) return "";
  return (OneIn(2) ? "@" : "@!") + Data(0) + " ";
}

void Writer::Declarations() {
  Line(".reg .b16 %h<" + Number(kDataRegisters16) + ">;");
  Line(".reg .b32 %r<" + Number(kDataRegisters32) + ">;");
  Line(".reg .b64 %d<" + Number(kDataRegisters64) + ">;");
  Line(".reg .pred %p<" + Number(kDataPredicates) + ">;");
  Line(".reg .b32 %t<8>, %c<64>, %m<128>, %lane, %slot;");
  Line(".reg .b64 %a<8>, %in, %own, %acc, %loc;");
  Line(".reg .pred %q<8>;");
  const std::string count = "<" + Number(kShortLived) + ">;";
  Line(".reg .b16 %hx" + count + "\n.reg .b32 %rx" + count);
  Line(".reg .b64 %dx" + count + "\n.reg .pred %px" + count);
  Line(".local .align 16 .b8 loc[" + Number(kLocalBytes) + "];");
}

// The sources that the letter of opcodes.def stands for.
std::string Writer::Source(char letter, std::string_view opcode, bool last) {
  const OpcodeInfo op = ParseOpcode(opcode);
  const std::uint32_t bytes = BytesOfLetter(letter, op);
  if (bytes == 0) return Data(0);
  // Amounts and positions are small now and then.
  if (letter == 'i' && OneIn(2)) return Number(Below(70));
  if (!last || !OneIn(6)) return Data(bytes);
  const Type type = op.key.type[letter == 'u' ? 1 : 0];
  if (op.base == "cvt" || letter == 'w') return Data(bytes);
  if (letter != 'i' && type == Type::kF32) return kFloats[Below(6)];
  if (letter != 'i' && type == Type::kF64) return kDoubles[Below(6)];
  if (bytes == 2) return Number(Below(65536));
  return kIntegers[Below(kIntegers.size())];
}

// What is left open about a NaN is settled.
void Writer::Canonical(const std::string& reg, std::uint32_t bytes) {
  const std::string bits = Number(8 * bytes);
  Line("testp.notanumber.f" + bits + " %q0, " + reg + ";");
  Line("@%q0 mov.b" + bits + " " + reg + ", " +
       (bytes == 8 ? "0x7ff8000000000000" : "0x7fffffff") + ";");
}

void Writer::Arithmetic() {
  const auto& group =
      Opcodes()[Below(static_cast<std::uint32_t>(Opcodes().size()))];
  const std::string& opcode =
      group[Below(static_cast<std::uint32_t>(group.size()))];
  const OpcodeInfo op = ParseOpcode(opcode);
  const std::string_view letters = GetOpcodeRow(op.row).operands;
  const std::size_t colon = letters.find(':');
  const std::uint32_t bytes = BytesOfLetter(letters[0], op);
  const std::string d = Data(bytes);
  std::string line = Guard() + opcode + " " + d;
  if (colon > 1 && (letters[1] == 'p' || OneIn(2))) {
    std::string second = Data(0);
    while (second == d) second = Data(0);
    line += "|" + second;
  }
  for (std::size_t i = colon + 1; i < letters.size(); ++i) {
    if (letters[i] == '[') {
      if (!op.Has("and") && !op.Has("or") && !op.Has("xor")) break;
      continue;
    }
    if (letters[i] == ']') break;
    const bool table = op.base == "lop3" && i == colon + 4;
    line +=
        ", " + (table ? Number(Below(256))
                      : Source(letters[i], opcode, i + 1 == letters.size()));
  }
  Line(line + ";");
  const Type type = op.key.type[0];
  if (type != Type::kF32 && type != Type::kF64) return;
  if (op.base == "neg" || op.base == "abs" || op.base == "min" ||
      op.base == "max" || op.base == "cvt") {
    Canonical(d, bytes);
  }
}

void Writer::CarryChain() {
  const bool wide = OneIn(2);
  const std::string type =
      wide ? (OneIn(2) ? ".u64" : ".s64") : (OneIn(2) ? ".u32" : ".s32");
  const std::uint32_t bytes = wide ? 8 : 4;
  const std::uint32_t kind = Below(3);
  const std::string guard = Guard();
  const std::uint32_t length = 2 + Below(2);
  for (std::uint32_t i = 0; i < length; ++i) {
    const bool first = i == 0;
    const std::string out = i + 1 == length && OneIn(2) ? "" : ".cc";
    std::string opcode = kind == 0 ? "add" : kind == 1 ? "sub" : "mad";
    if (!first) opcode += "c";
    if (kind == 2) opcode += OneIn(2) ? ".lo" : ".hi";
    std::string line = guard + opcode + (first ? ".cc" : out) + type + " " +
                       Data(bytes) + ", " + Data(bytes) + ", " + Data(bytes);
    if (kind == 2) line += ", " + Data(bytes);
    Line(line + ";");
  }
}

void Writer::PackOrUnpack() {
  const bool packs = OneIn(2);
  const std::uint32_t kind = Below(3);
  const std::uint32_t whole = kind == 0 ? 4 : 8;
  const std::uint32_t part = kind == 1 ? 4 : 2;
  std::vector<std::string> names;
  while (names.size() < whole / part) {
    std::string name = Data(part);
    // Destinations are different registers.
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(std::move(name));
    }
  }
  std::string vector = "{" + names[0];
  for (std::size_t i = 1; i < names.size(); ++i) vector += ", " + names[i];
  vector += "}";
  const std::string opcode = Guard() + "mov.b" + Number(8 * whole) + " ";
  Line(packs ? opcode + Data(whole) + ", " + vector + ";"
             : opcode + vector + ", " + Data(whole) + ";");
}

}  // namespace pos::ptx::testing
