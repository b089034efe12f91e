// atom and red: each lane on a word of its own shows old and new value of every
// operation; all lanes of four warps on one word show that none is lost.
#include <bit>
#include <string_view>

#include "body_case.h"
#include "pos/cuda_impl/ptx/opcodes.h"
#include "reference.h"
#include "spellings.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

// In units that all formats hold exactly: half integers up to 64.
u64 NumberIn(Type type, u64 n) {
  const float value = static_cast<float>(n % 64) * 0.5f;
  const u64 f32 = std::bit_cast<std::uint32_t>(value);
  switch (type) {
    case Type::kF32:
      return f32;
    case Type::kF64:
      return std::bit_cast<u64>(static_cast<double>(value));
    case Type::kBf16:
      return f32 >> 16;
    case Type::kF16:
      return value == 0 ? 0 : (f32 >> 13) - (112 << 10);
    case Type::kBf16x2:
      return NumberIn(Type::kBf16, n) | NumberIn(Type::kBf16, n + 3) << 16;
    case Type::kF16x2:
      return NumberIn(Type::kF16, n) | NumberIn(Type::kF16, n + 3) << 16;
    default:
      return CutTo(static_cast<Wide>(n * 0x9e3779b97f4a7c15), TypeBytes(type));
  }
}

// Sums of such numbers, found by trying.
u64 SumIn(Type type, u64 a, u64 b) {
  if (type == Type::kF16x2 || type == Type::kBf16x2) {
    const Type half = type == Type::kF16x2 ? Type::kF16 : Type::kBf16;
    return SumIn(half, a & 0xffff, b & 0xffff) | SumIn(half, a >> 16, b >> 16)
                                                     << 16;
  }
  if (type == Type::kF32) {
    return std::bit_cast<std::uint32_t>(
        std::bit_cast<float>(static_cast<std::uint32_t>(a)) +
        std::bit_cast<float>(static_cast<std::uint32_t>(b)));
  }
  if (type == Type::kF64) {
    return std::bit_cast<u64>(std::bit_cast<double>(a) +
                              std::bit_cast<double>(b));
  }
  for (u64 x = 0; x < 64; ++x) {
    for (u64 y = 0; y < 64; ++y) {
      if (NumberIn(type, x) != a || NumberIn(type, y) != b) continue;
      if (x + y < 64) return NumberIn(type, x + y);
      const float value = static_cast<float>(x + y) * 0.5f;
      const u64 f32 = std::bit_cast<std::uint32_t>(value);
      return type == Type::kBf16 ? f32 >> 16 : (f32 >> 13) - (112 << 10);
    }
  }
  return ~u64{0};
}

u64 Apply(const OpcodeInfo& op, u64 old, u64 b, u64 c) {
  const Type type = op.key.type[0];
  const std::uint32_t bytes = TypeBytes(type);
  const Wide x = IntegerOf(old, type);
  const Wide y = IntegerOf(b, type);
  if (op.Has("and")) return old & b;
  if (op.Has("or")) return old | b;
  if (op.Has("xor")) return old ^ b;
  if (op.Has("exch")) return b;
  if (op.Has("cas")) return old == b ? c : old;
  if (op.Has("inc")) return old >= b ? 0 : old + 1;
  if (op.Has("dec")) return old == 0 || old > b ? b : old - 1;
  if (op.Has("min")) return CutTo(x < y ? x : y, bytes);
  if (op.Has("max")) return CutTo(x > y ? x : y, bytes);
  if (ClassOf(type) == TypeClass::kFloat) return SumIn(type, old, b);
  return CutTo(x + y, bytes);
}

std::string Reg(std::uint32_t bytes, int number) {
  const char* const kind = bytes == 2 ? "%h" : bytes == 4 ? "%r" : "%d";
  return kind + std::to_string(number);
}

std::string_view SpaceOf(const OpcodeInfo& op) {
  for (const char* name : {"shared", "shared::cta", "shared::cluster"}) {
    if (op.Has(name)) return "shared";
  }
  return op.Has("global") ? "global" : "";
}

// A 16-byte room for every thread, filled from `in`, and back to `in` at the
// end. %d1: the room's address.
std::string Enter(std::string_view space, bool generic_shared) {
  std::string text = "mul.wide.u32 %d2, %i, 16;\nadd.u64 %d3, %in, %d2;\n";
  if (space != "shared" && !generic_shared) return text + "mov.u64 %d1, %d3;\n";
  text += R"(.shared .align 16 .b8 room[512];
mov.u64 %d1, room;
add.u64 %d1, %d1, %d2;
ld.global.v2.u64 {%d4, %d5}, [%d3];
st.shared.v2.u64 [%d1], {%d4, %d5};
)";
  return text + (generic_shared ? "cvta.shared.u64 %d1, %d1;\n" : "");
}
std::string Leave(std::string_view space, bool generic_shared) {
  if (space != "shared" && !generic_shared) return "";
  return R"(mov.u64 %d1, room;
add.u64 %d1, %d1, %d2;
ld.shared.v2.u64 {%d4, %d5}, [%d1];
st.global.v2.u64 [%d3], {%d4, %d5};
)";
}

std::string LoadOperands(std::uint32_t bytes) {
  const std::string type = ".b" + std::to_string(8 * bytes);
  return "ld.global" + type + " " + Reg(bytes, 10) + ", [%in+1024];\n" +
         "ld.global" + type + " " + Reg(bytes, 11) + ", [%in+1032];\n" + "mov" +
         type + " " + Reg(bytes, 12) + ", 0;\nmov.u64 %d38, 0;\n" +
         "and.b32 %r3, %i, 3;\nsetp.ne.u32 %p1, %r3, 0;\n";
}

// Lane i: its own word of in, operands after the rooms.
BodyCase OwnWords(const std::string& opcode, bool guarded,
                  bool generic_shared) {
  const OpcodeInfo op = ParseOpcode(opcode);
  const bool returns = op.base == "atom";
  const bool compares = op.Has("cas");
  const std::uint32_t bytes = TypeBytes(op.key.type[0]);
  BodyCase test;
  test.opcode = opcode;
  test.in.resize(130);
  for (u64 i = 0; i < 32; ++i) {
    test.in[2 * i] = NumberIn(op.key.type[0], i % 8);
  }
  const u64 b = NumberIn(op.key.type[0], 5);
  const u64 c = NumberIn(op.key.type[0], 6);
  test.in[128] = b;
  test.in[129] = c;
  const std::string_view space = SpaceOf(op);
  const bool generic = space.empty() && generic_shared;
  test.body = Enter(space, generic) + LoadOperands(bytes);
  if (guarded) test.body += "@%p1 ";
  test.body += opcode + " ";
  if (returns) test.body += Reg(bytes, 12) + ", ";
  test.body += "[%d1], " + Reg(bytes, 10);
  if (compares) test.body += ", " + Reg(bytes, 11);
  test.body += op.Has("L2::cache_hint") ? ", %d38;\n" : ";\n";
  if (returns) {
    test.body += "st.global.b" + std::to_string(8 * bytes) + " [%out], " +
                 Reg(bytes, 12) + ";\n";
  }
  test.body += Leave(space, generic);
  test.want_in = test.in;
  for (std::size_t i = 0; i < 32; ++i) {
    if (guarded && i % 4 == 0) continue;
    if (returns) test.Want(i) = test.in[2 * i];
    test.want_in[2 * i] = Apply(op, test.in[2 * i], b, c);
  }
  return test;
}

// 16 bytes: cas succeeds in lanes whose word is (b, b), exch in all.
BodyCase Wide128Words(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  BodyCase test;
  test.opcode = opcode;
  test.in.resize(64);
  const std::string_view space = SpaceOf(op);
  test.body = Enter(space, false);
  test.body += R"(mov.u64 %d10, 7;
mov.u64 %d11, 9;
mov.b128 %q0, {%d10, %d10};
mov.b128 %q1, {%d11, %d10};
mov.u64 %d38, 0;
)";
  const bool compares = op.Has("cas");
  test.body +=
      opcode + (compares ? " %q2, [%d1], %q0, %q1" : " %q2, [%d1], %q1");
  test.body += op.Has("L2::cache_hint") ? ", %d38;\n" : ";\n";
  test.body +=
      "mov.b128 {%d12, %d13}, %q2;\n"
      "st.global.v2.u64 [%out], {%d12, %d13};\n";
  test.body += Leave(space, false);
  for (std::size_t i = 0; i < 32; ++i) {
    test.in[2 * i] = 7;
    test.in[2 * i + 1] = i % 2 == 0 ? 7 : 8;
  }
  test.want_in = test.in;
  for (std::size_t i = 0; i < 32; ++i) {
    test.Want(i, 0) = 7;
    test.Want(i, 1) = test.in[2 * i + 1];
    if (compares && i % 2 != 0) continue;
    test.want_in[2 * i] = 9;
    test.want_in[2 * i + 1] = 7;
  }
  return test;
}

// 256 threads on one word: the order does not matter to the end.
BodyCase OneWord(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  const Type type = op.key.type[0];
  const std::uint32_t bytes = TypeBytes(type);
  BodyCase test;
  test.opcode = opcode;
  test.blocks = 2;
  test.threads = 128;
  test.in.resize(130);
  const bool is_float = ClassOf(type) == TypeClass::kFloat;
  const bool wraps = op.Has("inc") || op.Has("dec");
  const u64 b = wraps ? 9 : is_float ? NumberIn(type, 2) : 0x7654321;
  test.in[128] = CutTo(static_cast<Wide>(b), bytes);
  test.body = "mov.u64 %d1, %in;\n" + LoadOperands(bytes);
  test.body += opcode + " ";
  if (op.base == "atom") test.body += Reg(bytes, 12) + ", ";
  test.body += "[%d1], " + Reg(bytes, 10);
  test.body += op.Has("L2::cache_hint") ? ", %d38;\n" : ";\n";
  u64 value = test.in[0];
  for (int i = 0; i < 256; ++i) {
    value = is_float ? 0 : Apply(op, value, test.in[128], 0);
  }
  if (type == Type::kF32) value = std::bit_cast<std::uint32_t>(256.0f);
  if (type == Type::kF64) value = std::bit_cast<u64>(256.0);
  test.want_in = test.in;
  test.want_in[0] = value;
  return test;
}

}  // namespace

std::vector<BodyCase> AtomicCases() {
  std::vector<BodyCase> cases;
  for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
    const Shape shape = GetOpcodeRow(row).shape;
    if (shape != Shape::kAtom && shape != Shape::kRed) continue;
    for (const std::string& opcode : Spellings(row, 60)) {
      const OpcodeInfo op = ParseOpcode(opcode);
      const std::uint32_t bytes = TypeBytes(op.key.type[0]);
      if (bytes == 16) {
        cases.push_back(Wide128Words(opcode));
        continue;
      }
      cases.push_back(OwnWords(opcode, false, false));
      cases.push_back(OwnWords(opcode, true, true));
      // Every lane adds 1.0: exact in f32 and f64 only.
      const bool small = ClassOf(op.key.type[0]) == TypeClass::kFloat &&
                         op.key.type[0] != Type::kF32 &&
                         op.key.type[0] != Type::kF64;
      const bool ordered = op.Has("exch") || op.Has("cas");
      if (SpaceOf(op) != "shared" && !small && !ordered) {
        cases.push_back(OneWord(opcode));
      }
    }
  }
  return cases;
}

}  // namespace pos::ptx::testing
