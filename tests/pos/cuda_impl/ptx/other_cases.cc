// Carry chains, 128-bit moves, address conversions, parameters.
#include <string_view>

#include "body_case.h"
#include "pos/cuda_impl/ptx/opcodes.h"
#include "reference.h"
#include "spellings.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

std::string Reg(std::uint32_t bytes, int number) {
  return (bytes == 8 ? "%d" : "%r") + std::to_string(number);
}

// A chain of three limbs: low without carry in, the opcode, and the flag at the
// end, read by subc or addc like the chain and by the other one. Words that
// carry and words that do not.
constexpr u64 kWords[] = {0,
                          1,
                          0x7fffffff,
                          0x80000000,
                          0xffffffff,
                          0x7fffffffffffffff,
                          0x8000000000000000,
                          0xffffffffffffffff,
                          0x123456789abcdef0};

struct Chain {
  OpcodeInfo op;
  std::uint32_t bytes = 4;
  bool subtracts = false;
  bool multiplies = false;

  // What is added: b, or a half of b * c.
  [[nodiscard]] u64 Addend(u64 b, u64 c) const {
    if (!multiplies) return b;
    OpcodeInfo mul = op;
    mul.base = "mul";
    const u64 factors[] = {b, c};
    return ReferenceInt(mul, factors)->bits;
  }
  // a (+ or -) addend with the flag.
  u64 Step(u64 a, u64 addend, bool* flag) const {
    const Wide in = *flag ? 1 : 0;
    const Wide value =
        subtracts ? static_cast<Wide>(a) - static_cast<Wide>(addend) - in
                  : static_cast<Wide>(a) + static_cast<Wide>(addend) + in;
    *flag = value < 0 || value >> (8 * bytes) != 0;
    return CutTo(value, bytes);
  }
};

BodyCase CarryCase(const std::string& opcode) {
  Chain chain;
  chain.op = ParseOpcode(opcode);
  const std::string base(chain.op.base);
  chain.bytes = TypeBytes(chain.op.key.type[0]);
  chain.subtracts = base == "sub" || base == "subc";
  chain.multiplies = base == "mad" || base == "madc";
  const bool takes = base == "addc" || base == "subc" || base == "madc";
  const bool gives = chain.op.Has("cc");
  const std::string type = chain.bytes == 8 ? "u64" : "u32";
  const std::string first = chain.subtracts ? "sub.cc." : "add.cc.";
  const std::string next = chain.subtracts ? "subc." : "addc.";
  const std::string other = chain.subtracts ? "addc." : "subc.";
  BodyCase test;
  test.opcode = opcode;
  test.threads = 96;
  const std::uint32_t bytes = chain.bytes;
  const auto reg = [bytes](int n) { return Reg(bytes, n); };
  test.body = "mul.wide.u32 %d1, %i, 24;\nadd.u64 %d1, %in, %d1;\n";
  for (int n = 0; n < 3; ++n) {
    test.body += "ld.global." + type + " " + reg(10 + n) + ", [%d1+" +
                 std::to_string(8 * n) + "];\n";
  }
  test.body += "mov." + type + " " + reg(15) + ", 0;\n";
  test.body += "mov." + type + " " + reg(16) + ", 0;\n";
  // The flag: a + a carries when the top bit is set; a - c borrows when a < c.
  test.body += first + type + " " + reg(13) + ", " + reg(10) + ", " +
               reg(chain.subtracts ? 12 : 10) + ";\n";
  const std::string sources = chain.multiplies
                                  ? reg(11) + ", " + reg(12) + ", " + reg(10)
                                  : reg(10) + ", " + reg(11);
  test.body += opcode + " " + reg(14) + ", " + sources + ";\n";
  test.body +=
      next + type + " " + reg(15) + ", " + reg(15) + ", " + reg(15) + ";\n";
  test.body +=
      other + type + " " + reg(16) + ", " + reg(16) + ", " + reg(16) + ";\n";
  for (int n = 0; n < 4; ++n) {
    test.body += "st.global." + type + " [%out+" + std::to_string(8 * n) +
                 "], " + reg(13 + n) + ";\n";
  }
  constexpr std::size_t kCount = std::size(kWords);
  for (std::size_t i = 0; i < test.threads; ++i) {
    const u64 a = CutTo(static_cast<Wide>(kWords[i % kCount]), bytes);
    const u64 b = CutTo(static_cast<Wide>(kWords[i / kCount % kCount]), bytes);
    const u64 c = CutTo(static_cast<Wide>(kWords[(i * 5 + 2) % kCount]), bytes);
    for (const u64 word : {a, b, c}) test.in.push_back(word);
    bool flag = false;
    test.Want(i, 0) = chain.Step(a, chain.subtracts ? c : a, &flag);
    bool used = takes && flag;
    test.Want(i, 1) = chain.Step(a, chain.Addend(b, c), &used);
    if (gives) flag = used;
    // What a subtraction leaves says "no borrow" to an addition, and back.
    const u64 minus_one = CutTo(static_cast<Wide>(-1), bytes);
    const u64 read = chain.subtracts ? (flag ? 0 : 1) : (flag ? 0 : minus_one);
    test.Want(i, 2) = chain.Step(0, 0, &flag);
    test.Want(i, 3) = read;
  }
  return test;
}

BodyCase Move128Case() {
  BodyCase test;
  test.opcode = "mov.b128";
  test.body = R"(cvt.u64.u32 %d1, %i;
add.u64 %d2, %d1, 1000;
mov.b128 %q0, {%d1, %d2};
mov.u64 %d3, 0;
mov.b128 %q1, {%d3, %d3};
setp.gt.u32 %p0, %i, 3;
@%p0 mov.b128 %q1, %q0;
mov.b128 {%r1, %r2, %r3, %r4}, %q1;
st.global.v4.u32 [%out], {%r1, %r2, %r3, %r4};
)";
  for (std::size_t i = 4; i < 32; ++i) {
    test.Want(i, 0) = i;
    test.Want(i, 1) = i + 1000;
  }
  return test;
}

// There and back, and a generic access through it.
BodyCase CvtaCase(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  BodyCase test;
  test.opcode = opcode;
  std::string space = "global";
  for (const char* name : {"shared", "local", "const", "param"}) {
    if (op.Has(name)) space = name;
  }
  if (op.Has("shared::cta") || op.Has("shared::cluster")) space = "shared";
  if (op.Has("param::entry")) space = "param";
  const bool to = op.Has("to");
  test.module = ".const .u64 constant = 4242;\n.global .u64 variable = 4242;\n";
  std::string name = space == "const" ? "constant" : "variable";
  if (space == "shared" || space == "local") {
    name = "room";
    test.body = "." + space + " .u64 room;\nmov.u64 %d1, 4242;\nst." + space +
                ".u64 [room], %d1;\nbar.sync 0;\n";
  }
  if (space == "param") name = "k_in";
  test.body += "mov.u64 %d2, " + name + ";\n";
  test.body += (to ? "cvta." + space + ".u64" : opcode) + " %d3, %d2;\n";
  test.body += "ld.u64 %d4, [%d3];\n";
  test.body += (to ? opcode : "cvta.to." + space + ".u64") + " %d5, %d3;\n";
  test.body += "sub.u64 %d5, %d5, %d2;\n";
  if (space == "param") {
    test.body += "sub.u64 %d4, %d4, %in;\nadd.u64 %d4, %d4, 4242;\n";
  }
  test.body += "st.global.u64 [%out], %d4;\nst.global.u64 [%out+8], %d5;\n";
  for (std::size_t i = 0; i < 32; ++i) test.Want(i) = 4242;
  return test;
}

// Generic addresses of every space, asked for one.
BodyCase IsspacepCase(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  BodyCase test;
  test.opcode = opcode;
  test.body = ".shared .u64 s;\n.local .u64 l;\n";
  const char* const kinds[] = {"shared", "local", "param"};
  const char* const names[] = {"s", "l", "k_out"};
  for (int n = 0; n < 3; ++n) {
    test.body += std::string("mov.u64 %d1, ") + names[n] + ";\ncvta." +
                 kinds[n] + ".u64 %d" + std::to_string(2 + n) + ", %d1;\n";
  }
  test.body += "mov.u64 %d5, %in;\n";
  for (int n = 0; n < 4; ++n) {
    test.body += opcode + " %p0, %d" + std::to_string(2 + n) +
                 ";\nselp.u64 %d6, 1, 0, %p0;\nst.global.u64 [%out+" +
                 std::to_string(8 * n) + "], %d6;\n";
  }
  for (std::size_t i = 0; i < 32; ++i) {
    const bool shared =
        op.Has("shared") || op.Has("shared::cta") || op.Has("shared::cluster");
    test.Want(i, 0) = shared ? 1 : 0;
    test.Want(i, 1) = op.Has("local") ? 1 : 0;
    test.Want(i, 2) = op.Has("param") || op.Has("param::entry") ? 1 : 0;
    // Constants are device memory.
    test.Want(i, 3) = op.Has("global") || op.Has("const") ? 1 : 0;
  }
  return test;
}

std::uint32_t VectorOf(const OpcodeInfo& op) {
  return op.Has("v8") ? 8 : op.Has("v4") ? 4 : op.Has("v2") ? 2 : 1;
}

// A value through the parameter memory of a call, element by element.
BodyCase ParamCase(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  const Type type = op.key.type[0];
  const std::uint32_t bytes = TypeBytes(type);
  const std::uint32_t count = VectorOf(op);
  const bool loads = op.base == "ld";
  const char* const kind = bytes <= 2 ? "%h" : bytes == 4 ? "%r" : "%d";
  std::string vector = count == 1 ? "" : ".v" + std::to_string(count);
  std::string operands;
  for (std::uint32_t e = 0; e < count; ++e) {
    operands +=
        (e == 0 ? "" : ", ") + std::string(kind) + std::to_string(10 + e);
  }
  if (count > 1) operands = "{" + operands + "}";
  const std::string name(TypeName(type));
  const std::string store = loads ? "st.param" + vector + "." + name : opcode;
  const std::string load = loads ? opcode : "ld.param" + vector + "." + name;
  const std::string size = std::to_string(count * bytes);
  const std::string regs =
      ".reg .b16 %h<20>;\n.reg .b32 %r<20>;\n"
      ".reg .b64 %d<20>;\n";
  const std::string formal = ".param .align 16 .b8 ";
  BodyCase test;
  test.opcode = opcode;
  test.module = ".func (" + formal + "back[" + size + "]) twin(" + formal +
                "there[" + size + "])\n{\n" + regs + load + " " + operands +
                ", [there];\n" + store + " [back], " + operands +
                ";\nret;\n}\n";
  test.body = "mul.lo.u32 %r2, %i, 0x01234567;\n";
  for (std::uint32_t e = 0; e < count; ++e) {
    const std::string to = kind + std::to_string(10 + e);
    test.body +=
        "add.u32 %r3, %r2, " + std::to_string(e * 0x31415926u) + "U;\n";
    test.body += bytes <= 2   ? "cvt.u16.u32 " + to + ", %r3;\n"
                 : bytes == 4 ? "mov.b32 " + to + ", %r3;\n"
                              : "mov.b64 " + to + ", {%r3, %r2};\n";
  }
  test.body += "{\n" + formal + "a[" + size + "];\n" + formal + "b[" + size +
               "];\n" + store + " [a], " + operands +
               ";\ncall (b), twin, (a);\n" + load + " " + operands +
               ", [b];\n}\n";
  const char* const out_type = bytes <= 2 ? "u16" : bytes == 4 ? "u32" : "u64";
  for (std::uint32_t e = 0; e < count; ++e) {
    test.body += std::string("st.global.") + out_type + " [%out+" +
                 std::to_string(8 * e) + "], " + kind + std::to_string(10 + e) +
                 ";\n";
  }
  for (std::size_t i = 0; i < 32; ++i) {
    for (std::uint32_t e = 0; e < count; ++e) {
      const auto low = static_cast<std::uint32_t>(i) * 0x01234567u;
      const u64 whole = (low + e * 0x31415926u) | u64{low} << 32;
      const u64 value = CutTo(IntegerOf(whole, type), bytes <= 2 ? 2 : bytes);
      test.Want(i, e) = value;
    }
  }
  return test;
}

}  // namespace

std::vector<BodyCase> OtherCases() {
  std::vector<BodyCase> cases;
  cases.push_back(Move128Case());
  for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
    const OpcodeRow& about = GetOpcodeRow(row);
    const bool carries = about.base == "addc" || about.base == "subc" ||
                         about.base == "madc" ||
                         about.pattern.find("cc ") != std::string_view::npos;
    for (const std::string& opcode : Spellings(row, 80)) {
      if (about.shape == Shape::kCvta) cases.push_back(CvtaCase(opcode));
      if (about.base == "isspacep") cases.push_back(IsspacepCase(opcode));
      if (about.shape == Shape::kLoadParam ||
          about.shape == Shape::kStoreParam) {
        cases.push_back(ParamCase(opcode));
      }
      if (about.shape == Shape::kAlu && carries) {
        cases.push_back(CarryCase(opcode));
      }
    }
  }
  return cases;
}

}  // namespace pos::ptx::testing
