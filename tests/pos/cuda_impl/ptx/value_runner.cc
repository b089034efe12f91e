#include "value_runner.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdio>
#include <string_view>

#include "pos/cuda_impl/ptx/opcodes.h"
#include "reference.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

constexpr u64 kUntouched = 0xa5a5a5a5a5a5a5a5;
constexpr std::uint32_t kThreads = 128;

struct Register {
  char letter = 't';
  std::uint32_t bytes = 4;  // 0: predicate
  Type type = Type::kNone;

  [[nodiscard]] std::string Class() const {
    return bytes == 0 ? "pred" : "b" + std::to_string(8 * bytes);
  }
};

struct Signature {
  Register d;
  bool pair = false;  // a second destination, a predicate
  std::vector<Register> sources;
  std::vector<std::string> marks;  // of a video instruction's operands
};

// "vadd.u32.u32.u32 .b0 - .h1" is an opcode and marks of its operands, "_" for
// none.
std::vector<std::string> TakeMarks(std::string* opcode) {
  std::vector<std::string> marks;
  std::size_t end = opcode->find(' ');
  while (end != std::string::npos) {
    const std::size_t next = opcode->find(' ', end + 1);
    const std::string mark = opcode->substr(end + 1, next - end - 1);
    marks.push_back(mark == "_" ? "" : mark);
    end = next;
  }
  opcode->resize(std::min(opcode->find(' '), opcode->size()));
  marks.resize(4);
  return marks;
}
std::string Marked(const std::string& operand, const std::string& mark) {
  if (mark.starts_with('-')) return "-" + operand + mark.substr(1);
  return operand + mark;
}

Register RegisterOf(char letter, const OpcodeInfo& op, bool wide) {
  Register reg;
  reg.letter = letter;
  switch (letter) {
    case 'p':
    case 'P':
      reg.bytes = 0;
      return reg;
    case 'i':
      reg.type = Type::kU32;
      break;
    case 'h':
      reg.type = Type::kB16;
      break;
    case 'u':
      reg.type = op.key.type[1];
      break;
    default:
      reg.type = op.key.type[0];
      break;
  }
  reg.bytes = std::max(2u, TypeBytes(reg.type));
  if (letter == 'w') reg.bytes *= 2;
  // cvt and its like take registers wider than the type.
  if (wide && reg.bytes < 4) reg.bytes = 4;
  return reg;
}

Signature SignatureOf(const OpcodeInfo& op, bool wide,
                      std::vector<std::string> marks) {
  const std::string_view letters = GetOpcodeRow(op.row).operands;
  const std::size_t colon = letters.find(':');
  Signature signature;
  signature.d = RegisterOf(letters[0], op, wide);
  signature.pair = letters.substr(0, colon).size() > 1;
  for (const char letter : letters.substr(colon + 1)) {
    if (letter == '[' && !TakesOptional(op) && marks[0].empty()) break;
    if (letter == '[' || letter == ']') continue;
    signature.sources.push_back(RegisterOf(letter, op, wide));
  }
  signature.marks = std::move(marks);
  return signature;
}

std::string LoadSource(const Register& reg, std::size_t number) {
  const std::string name = "%s" + std::to_string(number);
  std::string text =
      "ld.global.u64 %x, [%in+" + std::to_string(8 * number) + "];\n";
  if (reg.bytes == 0) return text + "setp.ne.u64 " + name + ", %x, 0;\n";
  if (reg.bytes == 8) return text + "mov.b64 " + name + ", %x;\n";
  return text + "cvt.u" + std::to_string(8 * reg.bytes) + ".u64 " + name +
         ", %x;\n";
}

std::string StoreResult(const Register& reg, const char* name, int offset) {
  std::string text;
  if (reg.bytes == 0) {
    text = std::string("selp.u64 %x, 1, 0, ") + name + ";\n";
  } else if (reg.bytes == 8) {
    text = std::string("mov.b64 %x, ") + name + ";\n";
  } else {
    text = "cvt.u64.u" + std::to_string(8 * reg.bytes) + " %x, " + name + ";\n";
  }
  return text + "st.global.u64 [%out+" + std::to_string(offset) + "], %x;\n";
}

std::string Hex(u64 bits, std::uint32_t digits) {
  char text[32];
  std::snprintf(text, sizeof(text), "%0*llX", static_cast<int>(digits),
                static_cast<unsigned long long>(bits));
  return text;
}

std::string Literal(const Register& reg, u64 bits) {
  if (reg.type == Type::kF32) return "0f" + Hex(bits, 8);
  if (reg.type == Type::kF64) return "0d" + Hex(bits, 16);
  return "0x" + Hex(bits, 1);
}

std::string Instruction(const std::string& opcode, const Signature& signature,
                        bool guarded, const std::string& literal) {
  std::string text = guarded ? "@%g " : "";
  text += opcode + " " + Marked("%d", signature.marks[0]);
  if (signature.pair) text += "|%q";
  for (std::size_t i = 0; i < signature.sources.size(); ++i) {
    const bool last = i + 1 == signature.sources.size();
    if (last && !literal.empty()) {
      text += ", " + literal;
    } else {
      const std::string mark =
          i + 1 < signature.marks.size() ? signature.marks[i + 1] : "";
      text += ", " + Marked("%s" + std::to_string(i), mark);
    }
  }
  return text + ";\n";
}

std::string Untouched(const Register& reg) {
  if (reg.bytes == 0) return "setp.eq.u32 %d, %i, %i;\n";
  return "mov.b" + std::to_string(8 * reg.bytes) + " %d, 0x" +
         Hex(CutTo(static_cast<Wide>(kUntouched), reg.bytes), 1) + ";\n";
}

std::string KernelText(const Signature& signature,
                       const std::string& instruction) {
  const std::string stride = std::to_string(8 * signature.sources.size());
  std::string text = R"(.version 8.0
.target sm_90
.address_size 64
.visible .entry k(.param .u64 k_in, .param .u64 k_out)
{
.reg .b64 %in, %out, %x;
.reg .b32 %i, %n, %m;
.reg .pred %g, %q;
)";
  text += ".reg ." + signature.d.Class() + " %d;\n";
  for (std::size_t i = 0; i < signature.sources.size(); ++i) {
    text += ".reg ." + signature.sources[i].Class() + " %s" +
            std::to_string(i) + ";\n";
  }
  text += R"(ld.param.u64 %in, [k_in];
ld.param.u64 %out, [k_out];
mov.u32 %n, %ctaid.x;
mov.u32 %m, %ntid.x;
mov.u32 %i, %tid.x;
mad.lo.s32 %i, %n, %m, %i;
mul.wide.u32 %x, %i, 16;
add.u64 %out, %out, %x;
)";
  text += "mul.wide.u32 %x, %i, " + stride + ";\nadd.u64 %in, %in, %x;\n";
  for (std::size_t i = 0; i < signature.sources.size(); ++i) {
    text += LoadSource(signature.sources[i], i);
  }
  // Lanes 1, 4 … 7, 9, 12 … of each warp.
  text += "and.b32 %n, %i, 5;\nsetp.ne.u32 %g, %n, 0;\n";
  text += "setp.eq.u32 %q, %i, %i;\n" + Untouched(signature.d) + instruction;
  text += StoreResult(signature.d, "%d", 0);
  text += StoreResult(Register{'p', 0, Type::kNone}, "%q", 8);
  return text + "ret;\n}\n";
}

double ValueOf(u64 bits, Type type) {
  return type == Type::kF32 ? static_cast<double>(std::bit_cast<float>(
                                  static_cast<std::uint32_t>(bits)))
                            : std::bit_cast<double>(bits);
}

// Whether every 16 bits are at most `ulps` numbers apart.
bool NextTo(u64 got, u64 want, std::uint32_t bytes, u64 ulps) {
  for (std::uint32_t at = 0; at < 8 * bytes; at += 16) {
    const u64 x = got >> at & 0xffff;
    const u64 y = want >> at & 0xffff;
    if ((x < y ? y - x : x - y) > ulps) return false;
  }
  return true;
}

bool Accepts(const Want& want, u64 got, const Register& d) {
  if (want.anything) return true;
  if (want.open != 0 && (got & ~want.open) == (want.bits & ~want.open)) {
    return true;
  }
  if (want.ulps != 0) return NextTo(got, want.bits, d.bytes, want.ulps);
  if (got == CutTo(static_cast<Wide>(want.bits), d.bytes == 0 ? 1 : d.bytes)) {
    return true;
  }
  if (want.any_nan) return std::isnan(ValueOf(got, d.type));
  if (!want.approximate) return false;
  const double off = std::fabs(ValueOf(got, d.type) - want.value);
  return off <= want.relative * std::fabs(want.value) + want.absolute;
}

std::string Describe(const std::string& opcode, Sources in, u64 got, u64 want) {
  std::string text = opcode;
  for (const u64 source : in) text += " 0x" + Hex(source, 1);
  return text + " gave 0x" + Hex(got, 1) + ", not 0x" + Hex(want, 1);
}

void Compare(const std::string& opcode, const Signature& signature, Use use,
             const Rows& rows, const std::vector<u64>& out) {
  const OpcodeInfo op = ParseOpcode(opcode);
  const u64 untouched =
      signature.d.bytes == 0
          ? 1
          : CutTo(static_cast<Wide>(kUntouched), signature.d.bytes);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const u64 got = out[2 * i];
    if (use == Use::kGuarded && (i & 5) == 0) {
      ASSERT_EQ(got, untouched) << opcode << ": lane " << i << " was excluded";
      ASSERT_EQ(out[2 * i + 1], 1u) << opcode << ": second destination";
      continue;
    }
    const std::optional<Want> want =
        IsVideo(op) ? ReferenceVideo(op, rows[i], signature.marks)
                    : Reference(op, rows[i]);
    ASSERT_TRUE(want.has_value()) << "no reference for " << opcode;
    ASSERT_TRUE(Accepts(*want, got, signature.d))
        << Describe(opcode, rows[i], got, want->bits) << " in thread " << i;
    if (signature.pair) {
      ASSERT_TRUE(want->predicate.has_value()) << opcode;
      ASSERT_EQ(out[2 * i + 1] != 0, *want->predicate)
          << Describe(opcode, rows[i], out[2 * i + 1], *want->predicate ? 1 : 0)
          << " as its predicate";
    }
  }
}

}  // namespace

bool CanRunValues(std::size_t row) {
  const OpcodeRow& opcode = GetOpcodeRow(row);
  switch (opcode.shape) {
    case Shape::kAlu:
    case Shape::kSetp:
    case Shape::kMov:
    case Shape::kCvt:
    case Shape::kPrmt:
    case Shape::kVideo:
      break;
    default:
      return false;
  }
  // The carry flag needs two instructions, addresses need memory.
  return opcode.base != "addc" && opcode.base != "subc" &&
         opcode.base != "madc" && opcode.base != "isspacep" &&
         opcode.pattern.find("cc ") == std::string_view::npos;
}

void CheckValues(const std::string& spelling, Use use, IsaLevel level) {
  std::string opcode = spelling;
  std::vector<std::string> marks = TakeMarks(&opcode);
  const OpcodeInfo op = ParseOpcode(opcode);
  const bool wide =
      GetOpcodeRow(op.row).shape == Shape::kCvt && use == Use::kGuarded;
  const Signature signature = SignatureOf(op, wide, std::move(marks));
  Rows rows = MakeOperands(opcode);
  // Without the operands that may be missing; see TakesOptional.
  for (auto& row : rows) row.resize(signature.sources.size());
  std::string literal;
  if (use == Use::kImmediate) {
    const Register& last = signature.sources.back();
    if (last.bytes == 0 || !signature.marks.back().empty()) return;
    const std::size_t number = signature.sources.size();
    if (number < signature.marks.size() && !signature.marks[number].empty()) {
      return;
    }
    const u64 value = rows[rows.size() / 3].back();
    for (auto& row : rows) row.back() = value;
    literal = Literal(last, value);
  }
  TestModule module(
      KernelText(signature,
                 Instruction(opcode, signature, use == Use::kGuarded, literal)),
      level);
  std::vector<u64> in;
  for (const auto& row : rows) in.insert(in.end(), row.begin(), row.end());
  const auto blocks =
      static_cast<std::uint32_t>((rows.size() + kThreads - 1) / kThreads);
  in.resize(blocks * kThreads * signature.sources.size());
  const u64 out = module.memory().Allocate(blocks * kThreads * 16);
  Params params;
  params.Add(module.memory().Upload(in)).Add(out);
  const LaunchResult result = module.Launch(
      "k", params, {.grid = {blocks, 1, 1}, .block = {kThreads, 1, 1}});
  ASSERT_FALSE(result.fault.has_value()) << opcode << result.fault->text;
  Compare(opcode, signature, use, rows,
          TestMemory::Download<u64>(out, 2 * rows.size()));
}

}  // namespace pos::ptx::testing
