// Loads and stores: every type, vector, space and hint; adjacent, equal and
// scattered addresses; all lanes and some of them.
#include <cstring>
#include <string_view>

#include "body_case.h"
#include "pos/cuda_impl/ptx/opcodes.h"
#include "reference.h"
#include "spellings.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

constexpr std::size_t kTable = 32;        // words of `in` before the data
constexpr std::size_t kDataBytes = 1024;  // 32 lanes of at most 32 bytes

enum class Pattern { kAdjacent, kSame, kScattered };

struct Access {
  OpcodeInfo info;
  std::string_view space;  // of the data
  Type type = Type::kNone;
  std::uint32_t vector = 1;
  std::uint32_t bytes = 0;  // of all elements
  Pattern pattern = Pattern::kAdjacent;
  bool guarded = false;

  [[nodiscard]] std::size_t SlotOf(std::size_t lane) const {
    switch (pattern) {
      case Pattern::kAdjacent:
        return lane;
      case Pattern::kSame:
        return 5;
      default:
        return lane * 7 % 32;
    }
  }
  [[nodiscard]] bool Active(std::size_t lane) const {
    return !guarded || (lane & 6) != 0;
  }
};

Access AccessOf(const std::string& opcode, Pattern pattern, bool guarded) {
  Access access;
  access.info = ParseOpcode(opcode);
  access.type = access.info.key.type[0];
  for (const auto& [word, count] :
       {std::pair{"v2", 2u}, std::pair{"v4", 4u}, std::pair{"v8", 8u}}) {
    if (access.info.Has(word)) access.vector = count;
  }
  access.bytes = access.vector * TypeBytes(access.type);
  access.pattern = pattern;
  access.guarded = guarded;
  for (const std::string_view space : {"global", "shared", "shared::cta",
                                       "shared::cluster", "local", "const"}) {
    if (access.info.Has(space)) access.space = space;
  }
  if (access.space.starts_with("shared::")) access.space = "shared";
  return access;
}

unsigned char DataByte(std::size_t at) {
  return static_cast<unsigned char>((at * 37 + 11) & 255);
}

std::vector<u64> InputOf(const Access& access) {
  std::vector<u64> in(kTable + kDataBytes / 8);
  for (std::size_t lane = 0; lane < 32; ++lane) {
    in[lane] = access.SlotOf(lane) * access.bytes;
  }
  auto* data = reinterpret_cast<unsigned char*>(in.data() + kTable);
  for (std::size_t i = 0; i < kDataBytes; ++i) data[i] = DataByte(i);
  return in;
}

std::string ConstantData() {
  std::string text = ".const .align 32 .b8 constants[1024] = {";
  for (std::size_t i = 0; i < kDataBytes; ++i) {
    text += (i == 0 ? "" : ",") + std::to_string(DataByte(i));
  }
  return text + "};\n";
}

// %d1 becomes the address of the data in the instruction's space. `generic`
// says where a generic access finds it.
std::string PlaceData(const Access& access, std::string_view generic) {
  const std::string_view space = access.space.empty() ? generic : access.space;
  std::string text = "mov.u64 %d1, constants;\n";
  if (space == "global") text = "add.u64 %d1, %in, 256;\n";
  if (space == "shared" || space == "local") {
    const std::string s(space);
    text = "." + s + " .align 32 .b8 room[1024];\nmov.u64 %d1, room;\n";
    // A copy by every thread, of the same bytes.
    text += "mov.u32 %r2, 0;\nCOPY:\ncvt.u64.u32 %d2, %r2;\n";
    text += "add.u64 %d3, %in, %d2;\nld.global.u64 %d4, [%d3+256];\n";
    text += "add.u64 %d3, %d1, %d2;\nst." + s + ".u64 [%d3], %d4;\n";
    text += "add.u32 %r2, %r2, 8;\nsetp.lt.u32 %p0, %r2, 1024;\n";
    text += "@%p0 bra COPY;\nbar.sync 0;\n";
    if (access.space.empty()) text += "cvta." + s + ".u64 %d1, %d1;\n";
  }
  return text + R"(mul.wide.u32 %d5, %i, 8;
add.u64 %d5, %in, %d5;
ld.global.u64 %d6, [%d5];
add.u64 %d7, %d1, %d6;
and.b32 %r3, %i, 6;
setp.ne.u32 %p1, %r3, 0;
)";
}

// Registers of an access and what holds them: loads take integers into wider
// registers.
std::string ElementRegister(const Access& access, std::uint32_t e) {
  const std::uint32_t bytes = TypeBytes(access.type);
  const bool wide =
      access.vector == 1 && ClassOf(access.type) != TypeClass::kFloat;
  if (bytes == 16) return "%q0";
  if (wide || bytes == 8) return "%d" + std::to_string(20 + e);
  if (bytes == 4) return "%r" + std::to_string(20 + e);
  return "%h" + std::to_string(e);
}
std::string Operand(const Access& access) {
  if (access.vector == 1) return ElementRegister(access, 0);
  std::string text = "{";
  for (std::uint32_t e = 0; e < access.vector; ++e) {
    text += (e == 0 ? "" : ", ") + ElementRegister(access, e);
  }
  return text + "}";
}

std::string Policy(const Access& access) {
  return access.info.Has("L2::cache_hint") ? ", %d38" : "";
}

BodyCase LoadCase(const std::string& opcode, const Access& access,
                  std::string_view generic) {
  BodyCase test;
  test.opcode = opcode;
  test.module = ConstantData();
  test.in = InputOf(access);
  const std::uint32_t bytes = TypeBytes(access.type);
  test.body = PlaceData(access, generic) + "mov.u64 %d38, 0;\n";
  for (std::uint32_t e = 0; e < access.vector && bytes != 16; ++e) {
    const std::string reg = ElementRegister(access, e);
    const char* width = reg[1] == 'd' ? "64" : reg[1] == 'r' ? "32" : "16";
    test.body += std::string("mov.b") + width + " " + reg + ", 0;\n";
  }
  if (bytes == 16)
    test.body += "mov.b64 %d20, 0;\nmov.b128 %q0, {%d20, %d20};\n";
  if (access.guarded) test.body += "@%p1 ";
  test.body +=
      opcode + " " + Operand(access) + ", [%d7]" + Policy(access) + ";\n";
  for (std::uint32_t e = 0; e < access.vector; ++e) {
    const std::string reg = ElementRegister(access, e);
    const std::string at = "[%out+" + std::to_string(8 * e) + "]";
    if (bytes == 16) {
      test.body += "mov.b128 {%d21, %d22}, %q0;\n";
      test.body +=
          "st.global.u64 [%out], %d21;\nst.global.u64 [%out+8], %d22;\n";
    } else {
      const char* type = reg[1] == 'd' ? "u64" : reg[1] == 'r' ? "u32" : "u16";
      test.body +=
          std::string("st.global.") + type + " " + at + ", " + reg + ";\n";
    }
  }
  const auto* data =
      reinterpret_cast<const unsigned char*>(test.in.data() + kTable);
  for (std::size_t lane = 0; lane < 32; ++lane) {
    if (!access.Active(lane)) continue;
    const unsigned char* slot = data + access.SlotOf(lane) * access.bytes;
    if (bytes == 16) {
      std::memcpy(&test.Want(lane), slot, 16);
      continue;
    }
    for (std::uint32_t e = 0; e < access.vector; ++e) {
      u64 value = 0;
      std::memcpy(&value, slot + e * bytes, bytes);
      const std::string reg = ElementRegister(access, e);
      const std::uint32_t width = reg[1] == 'd' ? 8 : reg[1] == 'r' ? 4 : 2;
      test.Want(lane, e) = CutTo(IntegerOf(value, access.type), width);
    }
  }
  return test;
}

// Every thread reads back the 32 bytes around what it wrote (local) or its
// share of all (elsewhere).
std::string ReadBack(const Access& access, bool own) {
  std::string text = "bar.sync 0;\n";
  text += own ? "and.b64 %d8, %d6, -32;\n" : "mul.wide.u32 %d8, %i, 32;\n";
  text += "add.u64 %d8, %d1, %d8;\n";
  for (int k = 0; k < 4; ++k) {
    text += std::string("ld") +
            (access.space.empty() ? "" : "." + std::string(access.space)) +
            ".u64 %d9, [%d8+" + std::to_string(8 * k) + "];\n";
    text += "st.global.u64 [%out+" + std::to_string(8 * k) + "], %d9;\n";
  }
  return text;
}

BodyCase StoreCase(const std::string& opcode, const Access& access,
                   std::string_view generic) {
  BodyCase test;
  test.opcode = opcode;
  test.module = ConstantData();
  test.in = InputOf(access);
  const std::uint32_t bytes = TypeBytes(access.type);
  test.body = PlaceData(access, generic) + "mov.u64 %d38, 0;\n";
  // Element e of thread i: the bytes i * 8 + e, 251 - i, …
  test.body += "mul.lo.u32 %r4, %i, 0x01030507;\nbar.sync 0;\n";
  for (std::uint32_t e = 0; e < access.vector; ++e) {
    test.body += "add.u32 %r5, %r4, " + std::to_string(e * 0x11223344u) +
                 "U;\nmov.b64 %d10, {%r5, %r4};\n";
    const std::string reg = ElementRegister(access, e);
    if (bytes == 16) {
      test.body +=
          "mov.b128 %q0, {%d10, %d5};\nmov.b64 %d11, 99;\n"
          "mov.b128 %q0, {%d10, %d11};\n";
    } else if (reg[1] == 'd') {
      test.body += "mov.b64 " + reg + ", %d10;\n";
    } else if (reg[1] == 'r') {
      test.body += "mov.b32 " + reg + ", %r5;\n";
    } else {
      test.body += "cvt.u16.u32 " + reg + ", %r5;\n";
    }
  }
  if (access.guarded) test.body += "@%p1 ";
  test.body += opcode + " [%d7], " + Operand(access) + Policy(access) + ";\n";
  const std::string_view space = access.space.empty() ? generic : access.space;
  const bool own = space == "local";
  test.body += ReadBack(access, own);
  std::vector<unsigned char> before(kDataBytes);
  std::memcpy(before.data(), test.in.data() + kTable, kDataBytes);
  std::vector<unsigned char> all = before;
  for (std::size_t lane = 0; lane < 32; ++lane) {
    std::vector<unsigned char>& data = all;
    std::vector<unsigned char> local = before;
    unsigned char* slot =
        (own ? local : data).data() + access.SlotOf(lane) * access.bytes;
    for (std::uint32_t e = 0; e < access.vector && access.Active(lane); ++e) {
      const auto low = static_cast<std::uint32_t>(lane) * 0x01030507u;
      const u64 parts[2] = {(low + e * 0x11223344u) | u64{low} << 32, 99};
      std::memcpy(slot + e * bytes, parts, bytes);
    }
    if (own) {
      const std::size_t at = access.SlotOf(lane) * access.bytes & ~31u;
      std::memcpy(&test.Want(lane), local.data() + at, 32);
    }
  }
  for (std::size_t lane = 0; lane < 32 && !own; ++lane) {
    std::memcpy(&test.Want(lane), all.data() + 32 * lane, 32);
  }
  if (space == "global") {
    test.want_in = test.in;
    std::memcpy(test.want_in.data() + kTable, all.data(), kDataBytes);
  }
  return test;
}

// One generic address of local memory is another place for each lane.
BodyCase OwnPlaceCase(std::string_view type, const std::string& reg) {
  BodyCase test;
  test.opcode = "ld." + std::string(type);
  test.body =
      ".local .align 8 .b8 own[16];\nmov.u64 %d1, own;\n"
      "cvta.local.u64 %d1, %d1;\nmul.lo.u32 %r2, %i, 3;\n"
      "cvt.u64.u32 %d2, %r2;\nst.local.u64 [own+8], %d2;\n" +
      test.opcode + " " + reg + ", [%d1+8];\nst.global." + std::string(type) +
      " [%out], " + reg + ";\n";
  for (std::size_t lane = 0; lane < 32; ++lane) test.Want(lane) = 3 * lane;
  return test;
}

}  // namespace

std::vector<BodyCase> MemoryCases() {
  std::vector<BodyCase> cases;
  for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
    const Shape shape = GetOpcodeRow(row).shape;
    if (shape != Shape::kLoad && shape != Shape::kStore) continue;
    for (const std::string& opcode : Spellings(row, 100)) {
      for (const Pattern pattern :
           {Pattern::kAdjacent, Pattern::kSame, Pattern::kScattered}) {
        for (const bool guarded : {false, true}) {
          const Access access = AccessOf(opcode, pattern, guarded);
          const std::string_view generic = pattern == Pattern::kSame ? "local"
                                           : guarded                 ? "shared"
                                                                     : "global";
          if (shape == Shape::kLoad) {
            cases.push_back(LoadCase(opcode, access, generic));
          } else if (pattern != Pattern::kSame) {
            cases.push_back(StoreCase(opcode, access, generic));
          }
        }
      }
    }
  }
  cases.push_back(OwnPlaceCase("u8", "%h3"));
  cases.push_back(OwnPlaceCase("u32", "%r3"));
  cases.push_back(OwnPlaceCase("b64", "%d3"));
  return cases;
}

}  // namespace pos::ptx::testing
