// wmma: matrices from memory, multiplied, to memory. How elements lie in
// registers in between is not for anyone to know, but each must be there.
#include <array>
#include <cstring>

#include "body_case.h"
#include "reference_matrix.h"
#include "spellings.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

enum Part : std::size_t { kA, kB, kC, kD, kParts };

// One matrix in memory.
struct Stored {
  Type type = Type::kNone;
  std::size_t rows = 0;
  std::size_t columns = 0;
  bool by_column = false;
  std::string space = ".global";  // or "": generic
  bool in_shared = false;
  std::size_t offset = 0;  // bytes
  std::size_t stride = 0;  // elements
  bool default_stride = false;

  [[nodiscard]] std::size_t Contiguous() const {
    return by_column ? rows : columns;
  }
  [[nodiscard]] std::size_t Bytes() const {
    return (by_column ? columns : rows) * stride * ElementBitsOf(type) / 8;
  }
};

struct Program {
  std::string tested;
  ProductSpec spec;
  std::string shape;
  std::string mma;  // its opcode; empty: the plain one for the types
  std::array<Stored, kParts> parts;
  bool negates = false;  // all elements of A and C, in their registers
};

std::string LayoutName(bool by_column) { return by_column ? "col" : "row"; }

std::string MmaName(const Program& program) {
  const ProductSpec& spec = program.spec;
  std::string types = std::string(TypeName(spec.d));
  if (spec.a != Type::kF16) {
    types += "." + std::string(TypeName(spec.a)) + "." +
             std::string(TypeName(spec.b));
  }
  types += "." + std::string(TypeName(spec.c));
  return std::string("wmma.mma") + (spec.a == Type::kB1 ? ".and.popc" : "") +
         ".sync.aligned." + LayoutName(program.parts[kA].by_column) + "." +
         LayoutName(program.parts[kB].by_column) + "." + program.shape + "." +
         types;
}

std::string AccessName(const Program& program, Part part) {
  const Stored& stored = program.parts[part];
  const char* const names[] = {"load.a", "load.b", "load.c", "store.d"};
  return std::string("wmma.") + names[part] + ".sync.aligned." +
         LayoutName(stored.by_column) + "." + program.shape + stored.space +
         "." + std::string(TypeName(stored.type));
}

std::size_t RegistersOf(const Program& program, Part part) {
  const Stored& stored = program.parts[part];
  const std::size_t elements = stored.rows * stored.columns / 32;
  const std::size_t bits = ElementBitsOf(stored.type);
  if (part == kA || part == kB) {
    if (stored.type == Type::kF16) return 8;
    return bits == 64 ? elements : elements * bits / 32;
  }
  return bits == 16 ? elements / 2 : elements;
}

std::string Fragment(const Program& program, Part part) {
  const bool wide = program.spec.a == Type::kF64;
  const std::size_t first = (wide ? 10 : 8) + 8 * (part == kD ? kC : part);
  std::string text = "{";
  for (std::size_t i = 0; i < RegistersOf(program, part); ++i) {
    text += (i != 0 ? ", %" : "%") + std::string(wide ? "d" : "r") +
            std::to_string(first + i);
  }
  return text + "}";
}

// Defaults for everything that the tested opcode does not say.
void SetTypes(const OpcodeInfo& op, ProductSpec* spec) {
  const Type type = op.key.type[0];
  const bool factor = op.Has("a") || op.Has("b");
  Type a = factor ? type : Type::kF16;
  Type c = factor ? Type::kF32 : type;
  if (factor && ClassOf(type) != TypeClass::kFloat) c = Type::kS32;
  if (type == Type::kF64) a = c = Type::kF64;
  if (!factor && type == Type::kS32) {
    a = spec->k == 128 ? Type::kB1 : spec->k == 32 ? Type::kS4 : Type::kU8;
  }
  if (!factor && spec->k == 8) a = Type::kTf32;
  spec->a = spec->b = a;
  spec->c = spec->d = c;
}

Program ProgramFor(const std::string& opcode, unsigned seed) {
  const OpcodeInfo op = ParseOpcode(opcode);
  Program program;
  program.tested = opcode;
  ProductSpec& spec = program.spec;
  const bool product = op.Has("mma");
  if (product) {
    spec = SpecOf(op);
    program.mma = opcode;
  } else {
    ShapeIn(op, &spec);
    SetTypes(op, &spec);
  }
  program.shape = "m" + std::to_string(spec.m) + "n" + std::to_string(spec.n) +
                  "k" + std::to_string(spec.k);
  auto& parts = program.parts;
  parts[kA] = {spec.a, spec.m, spec.k};
  parts[kB] = {spec.b, spec.k, spec.n};
  parts[kC] = {spec.c, spec.m, spec.n};
  parts[kD] = {spec.d, spec.m, spec.n};
  const bool narrow = ElementBitsOf(spec.a) < 8;
  parts[kB].by_column = narrow || seed % 2 != 0;
  parts[kC].by_column = seed % 3 == 0;
  parts[kA].by_column = !narrow && seed % 5 == 0;
  std::vector<bool> layouts;
  for (const std::string_view word : op.words) {
    if (word == "row" || word == "col") layouts.push_back(word == "col");
  }
  if (product) {
    parts[kA].by_column = layouts[0];
    parts[kB].by_column = layouts[1];
  } else {
    Stored& stored = parts[op.Has("a")   ? kA
                           : op.Has("b") ? kB
                           : op.Has("c") ? kC
                                         : kD];
    stored.by_column = layouts[0];
    stored.space = op.Has("global")        ? ".global"
                   : op.Has("shared")      ? ".shared"
                   : op.Has("shared::cta") ? ".shared::cta"
                                           : "";
    stored.in_shared = stored.space.empty()
                           ? seed % 2 != 0
                           : stored.space.rfind(".shared", 0) == 0;
  }
  std::size_t offset = 0;
  for (Stored& stored : parts) {
    const std::size_t bits = ElementBitsOf(stored.type);
    stored.stride = stored.Contiguous();
    stored.default_stride = seed % 4 == 0;
    if (!stored.default_stride) stored.stride += 128 / bits * (seed % 3);
    stored.offset = offset;
    offset += (stored.Bytes() + 255) / 256 * 256;
  }
  return program;
}

void PutBits(std::vector<u64>* memory, std::size_t at, std::size_t width,
             u64 value) {
  const u64 mask = width == 64 ? ~u64{0} : (u64{1} << width) - 1;
  u64& word = (*memory)[at / 64];
  word = (word & ~(mask << at % 64)) | value << at % 64;
}

void PutMatrix(const Stored& stored, const Matrix& matrix,
               std::vector<u64>* memory) {
  const std::size_t bits = ElementBitsOf(stored.type);
  for (std::size_t r = 0; r < matrix.rows; ++r) {
    for (std::size_t c = 0; c < matrix.columns; ++c) {
      const std::size_t e =
          stored.by_column ? c * stored.stride + r : r * stored.stride + c;
      PutBits(memory, stored.offset * 8 + e * bits, bits, matrix.At(r, c));
    }
  }
}

// All of the memory, 16 bytes of each 512 by each lane.
std::string CopyAll(std::size_t bytes, bool in) {
  std::string text = in ? "" : "bar.warp.sync -1;\n";
  for (std::size_t at = 0; at < bytes; at += 512) {
    const std::string offset = "+" + std::to_string(at) + "]";
    const std::string global = "[%d1" + offset;
    const std::string shared = "[%r3" + offset;
    text += "ld." + std::string(in ? "global" : "shared") +
            ".v2.b64 {%d4, %d5}, " + (in ? global : shared) + ";\nst." +
            (in ? "shared" : "global") + ".v2.b64 " + (in ? shared : global) +
            ", {%d4, %d5};\n";
  }
  return text + (in ? "bar.warp.sync -1;\n" : "");
}

std::string AccessText(const Program& program, Part part, unsigned seed) {
  const Stored& stored = program.parts[part];
  std::string text;
  std::string base = "%in";
  if (stored.in_shared) base = stored.space.empty() ? "%d3" : "%r2";
  std::string stride = ", " + std::to_string(stored.stride);
  if (stored.default_stride) {
    stride = "";
  } else if (seed % 2 == 0) {
    text += "mov.u32 %r4, " + std::to_string(stored.stride) + ";\n";
    stride = ", %r4";
  }
  const std::string address =
      "[" + base + "+" + std::to_string(stored.offset) + "]";
  const std::string fragment = Fragment(program, part);
  text += AccessName(program, part) + " ";
  text += part == kD ? address + ", " + fragment : fragment + ", " + address;
  return text + stride + ";\n";
}

// Changes the sign of every element that the registers hold.
std::string NegateText(const Program& program) {
  std::string text;
  for (const Part part : {kA, kC}) {
    const bool half = program.parts[part].type == Type::kF16;
    const std::size_t first = 8 + 8 * part;
    for (std::size_t i = 0; i < RegistersOf(program, part); ++i) {
      const std::string reg = "%r" + std::to_string(first + i);
      text += "xor.b32 " + reg + ", " + reg + ", " +
              (half ? "0x80008000" : "0x80000000") + ";\n";
    }
  }
  return text;
}

Matrix Negated(Matrix matrix, Type type) {
  for (u64& bits : matrix.bits) bits ^= u64{1} << (ElementBitsOf(type) - 1);
  return matrix;
}

BodyCase CaseOf(const Program& program, Values values, unsigned seed) {
  const ProductSpec& spec = program.spec;
  const auto& parts = program.parts;
  std::mt19937_64 random(seed);
  Matrix a = RandomMatrix(spec.m, spec.k, spec.a, values, &random);
  const Matrix b = RandomMatrix(spec.k, spec.n, spec.b, values, &random);
  Matrix c = RandomMatrix(spec.m, spec.n, spec.c, values, &random);
  BodyCase test;
  test.opcode = program.tested;
  const std::size_t bytes =
      (parts[kD].offset + parts[kD].Bytes() + 511) / 512 * 512;
  test.in.resize(bytes / 8);
  for (u64& word : test.in) word = random();
  PutMatrix(parts[kA], a, &test.in);
  PutMatrix(parts[kB], b, &test.in);
  PutMatrix(parts[kC], c, &test.in);
  if (program.negates) {
    a = Negated(a, spec.a);
    c = Negated(c, spec.c);
  }
  test.want_in = test.in;
  PutMatrix(parts[kD], ReferenceProduct(spec, a, b, c), &test.want_in);
  test.module =
      ".shared .align 32 .b8 mirror[" + std::to_string(bytes) + "];\n";
  test.body =
      "mul.wide.u32 %d1, %i, 16;\nadd.u64 %d1, %in, %d1;\n"
      "mov.u32 %r2, mirror;\nshl.b32 %r3, %i, 4;\nadd.u32 %r3, %r2, %r3;\n"
      "cvt.u64.u32 %d3, %r2;\ncvta.shared.u64 %d3, %d3;\n" +
      CopyAll(bytes, true);
  for (const Part part : {kA, kB, kC}) {
    test.body += AccessText(program, part, seed);
  }
  if (program.negates) test.body += NegateText(program);
  // The result has the accumulator's registers.
  test.body += (program.mma.empty() ? MmaName(program) : program.mma) + " " +
               Fragment(program, kD) + ", " + Fragment(program, kA) + ", " +
               Fragment(program, kB) + ", " + Fragment(program, kC) + ";\n" +
               AccessText(program, kD, seed);
  if (parts[kD].in_shared) test.body += CopyAll(bytes, false);
  return test;
}

}  // namespace

std::vector<BodyCase> WmmaCases() {
  std::vector<BodyCase> cases;
  unsigned seed = 100;
  for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
    if (GetOpcodeRow(row).base != "wmma") continue;
    for (const std::string& opcode : Spellings(row, 48)) {
      Program program = ProgramFor(opcode, ++seed);
      if (program.mma.empty()) {
        cases.push_back(CaseOf(program, Values::kPlain, seed));
        continue;
      }
      for (const Values values :
           {Values::kPlain, Values::kWide, Values::kTiny, Values::kSpecial}) {
        cases.push_back(CaseOf(program, values, ++seed));
      }
      program.negates = program.spec.a == Type::kF16;
      if (program.negates) {
        cases.push_back(CaseOf(program, Values::kPlain, ++seed));
      }
    }
  }
  return cases;
}

}  // namespace pos::ptx::testing
