// mma, ldmatrix, stmatrix, movmatrix: registers of each lane as the PTX ISA
// places the elements of matrices in them.
#include <cstring>

#include "body_case.h"
#include "reference_matrix.h"
#include "spellings.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

struct Place {
  std::size_t row;
  std::size_t column;
};

// Element `i` of A in a lane's registers ("Matrix fragments for mma.…"):
// groupID = lane >> 2, threadID_in_group = lane % 4, `per` elements to a
// register (for f64 and tf32 one).
Place PlaceInA(const ProductSpec& spec, std::size_t per, std::size_t lane,
               std::size_t i) {
  const std::size_t reg = i / per;
  const std::size_t pair = spec.m == 16 ? reg / 2 : reg;
  const std::size_t row = lane / 4 + (spec.m == 16 && reg % 2 == 1 ? 8 : 0);
  return {row, lane % 4 * per + i % per + pair * 4 * per};
}
Place PlaceInB(std::size_t per, std::size_t lane, std::size_t i) {
  return {lane % 4 * per + i % per + i / per * 4 * per, lane / 4};
}
Place PlaceInC(std::size_t lane, std::size_t i) {
  return {lane / 4 + (i >= 2 ? 8 : 0), lane % 4 * 2 + (i & 1)};
}

// m8n8k4.f16: the lane's quad-pair has a product of its own.
Place PlaceInQuadA(bool column, std::size_t lane, std::size_t i) {
  const std::size_t high = lane >= 16 ? 4 : 0;
  return column ? Place{i % 4 + high, lane % 4} : Place{lane % 4 + high, i};
}
Place PlaceInQuadB(bool column, std::size_t lane, std::size_t i) {
  const std::size_t high = lane >= 16 ? 4 : 0;
  return column ? Place{i, lane % 4 + high} : Place{lane % 4, i + high};
}
Place PlaceInQuadC(Type type, std::size_t lane, std::size_t i) {
  const std::size_t high = lane >= 16 ? 4 : 0;
  if (type == Type::kF16) return {lane % 4 + high, i};
  return {(lane & 1) + (i & 2) + high, (i & 4) + (lane & 2) + (i & 1)};
}

// Everything about one case.
struct Mma {
  OpcodeInfo op;
  ProductSpec spec;
  bool quads = false;
  bool column_a = false;
  bool column_b = false;
  std::vector<Matrix> a, b, c, d;  // one product, or one for each quad-pair

  [[nodiscard]] std::size_t ProductOf(std::size_t lane) const {
    return quads ? lane % 16 / 4 : 0;
  }
  [[nodiscard]] std::size_t Elements(const std::vector<Matrix>& of) const {
    return of[0].bits.size() * of.size() / 32;
  }
  u64 A(std::size_t lane, std::size_t i) const {
    const std::size_t per =
        std::max<std::size_t>(32 / ElementBitsOf(spec.a), 1);
    const Place p =
        quads ? PlaceInQuadA(column_a, lane, i) : PlaceInA(spec, per, lane, i);
    return a[ProductOf(lane)].At(p.row, p.column);
  }
  u64 B(std::size_t lane, std::size_t i) const {
    const std::size_t per =
        std::max<std::size_t>(32 / ElementBitsOf(spec.b), 1);
    const Place p =
        quads ? PlaceInQuadB(column_b, lane, i) : PlaceInB(per, lane, i);
    return b[ProductOf(lane)].At(p.row, p.column);
  }
  u64 Result(const std::vector<Matrix>& of, Type type, std::size_t lane,
             std::size_t i) const {
    const Place p = quads ? PlaceInQuadC(type, lane, i) : PlaceInC(lane, i);
    return of[ProductOf(lane)].At(p.row, p.column);
  }
};

// Registers of a fragment of `elements` elements, `of(i)`.
template <typename F>
std::vector<u64> Registers(std::size_t elements, Type type, F of) {
  const std::size_t bits = ElementBitsOf(type);
  const std::size_t width = type == Type::kF64 ? 64 : 32;
  std::vector<u64> registers(elements * bits / width);
  for (std::size_t i = 0; i < elements; ++i) {
    registers[i * bits / width] |= of(i) << (i * bits % width);
  }
  return registers;
}

Mma RandomMma(const std::string& opcode, Values values, unsigned seed) {
  Mma mma;
  mma.op = ParseOpcode(opcode);
  mma.spec = SpecOf(mma.op);
  const ProductSpec& spec = mma.spec;
  mma.quads = spec.a == Type::kF16 && spec.k == 4;
  bool first = true;
  for (const std::string_view word : mma.op.words) {
    if (word != "row" && word != "col") continue;
    (first ? mma.column_a : mma.column_b) = word == "col";
    first = false;
  }
  std::mt19937_64 random(seed);
  for (int i = 0; i < (mma.quads ? 4 : 1); ++i) {
    mma.a.push_back(RandomMatrix(spec.m, spec.k, spec.a, values, &random));
    mma.b.push_back(RandomMatrix(spec.k, spec.n, spec.b, values, &random));
    mma.c.push_back(RandomMatrix(spec.m, spec.n, spec.c, values, &random));
    mma.d.push_back(
        ReferenceProduct(spec, mma.a.back(), mma.b.back(), mma.c.back()));
  }
  return mma;
}

// "{%r4, %r5}"
std::string List(bool wide, std::size_t first, std::size_t count) {
  std::string text = "{";
  for (std::size_t i = 0; i < count; ++i) {
    text += (i != 0 ? ", %" : "%") + std::string(wide ? "d" : "r") +
            std::to_string(first + i);
  }
  return text + "}";
}

BodyCase MmaCase(const std::string& opcode, Values values, unsigned seed) {
  const Mma mma = RandomMma(opcode, values, seed);
  const ProductSpec& spec = mma.spec;
  BodyCase test;
  test.opcode = opcode;
  const bool wide = spec.a == Type::kF64;
  std::size_t counts[4] = {};
  for (std::size_t lane = 0; lane < 32; ++lane) {
    const auto a = Registers(mma.Elements(mma.a), spec.a,
                             [&](std::size_t i) { return mma.A(lane, i); });
    const auto b = Registers(mma.Elements(mma.b), spec.b,
                             [&](std::size_t i) { return mma.B(lane, i); });
    const auto c = Registers(mma.Elements(mma.c), spec.c, [&](std::size_t i) {
      return mma.Result(mma.c, spec.c, lane, i);
    });
    const auto d = Registers(mma.Elements(mma.d), spec.d, [&](std::size_t i) {
      return mma.Result(mma.d, spec.d, lane, i);
    });
    for (const auto* registers : {&a, &b, &c}) {
      test.in.insert(test.in.end(), registers->begin(), registers->end());
    }
    counts[0] = d.size();
    counts[1] = a.size();
    counts[2] = b.size();
    counts[3] = c.size();
    for (std::size_t i = 0; i < d.size(); ++i) test.Want(lane, i) = d[i];
  }
  const std::size_t sources = counts[1] + counts[2] + counts[3];
  const std::string name = wide ? "%d" : "%r";
  const std::string type = wide ? "b64" : "b32";
  test.body = "mul.wide.u32 %d1, %i, " + std::to_string(8 * sources) +
              ";\nadd.u64 %d1, %in, %d1;\n";
  for (std::size_t i = 0; i < sources; ++i) {
    test.body += "ld.global." + type + " " + name + std::to_string(4 + i) +
                 ", [%d1+" + std::to_string(8 * i) + "];\n";
  }
  test.body += opcode + " " + List(wide, 4 + sources, counts[0]) + ", " +
               List(wide, 4, counts[1]) + ", " +
               List(wide, 4 + counts[1], counts[2]) + ", " +
               List(wide, 4 + counts[1] + counts[2], counts[3]) + ";\n";
  for (std::size_t i = 0; i < counts[0]; ++i) {
    test.body += "st.global." + type + " [%out+" + std::to_string(8 * i) +
                 "], " + name + std::to_string(4 + sources + i) + ";\n";
  }
  return test;
}

// D in the registers of C, as accumulating loops have it.
BodyCase AccumulatingCase() {
  const std::string opcode =
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32";
  BodyCase test = MmaCase(opcode, Values::kPlain, 5);
  const std::string from = "{%r14, %r15, %r16, %r17}, {%r4";
  const std::size_t at = test.body.find(from);
  test.body.replace(at, from.size(), "{%r10, %r11, %r12, %r13}, {%r4");
  for (int i = 0; i < 4; ++i) {
    const std::string old = "], %r" + std::to_string(14 + i) + ";";
    test.body.replace(test.body.find(old), old.size(),
                      "], %r" + std::to_string(10 + i) + ";");
  }
  return test;
}

// ---- ldmatrix, stmatrix, movmatrix.

constexpr std::size_t kRowCount = 32;

std::string RowsModule() { return ".shared .align 16 .b8 rows[1024];\n"; }

// Lane l has the address of row (5 l + 3) % 32 of what lies in `rows`.
std::size_t RowOf(std::size_t lane) { return (5 * lane + 3) % kRowCount; }

std::string CopyRows(bool in) {
  // 512 bytes: each lane its own 16.
  const std::string global = "[%d1]";
  const std::string shared = "[%r3]";
  std::string text =
      "mul.wide.u32 %d1, %i, 16;\nadd.u64 %d1, %in, %d1;\nmov.u32 %r2, rows;\n"
      "shl.b32 %r3, %i, 4;\nadd.u32 %r3, %r2, %r3;\n";
  if (in) {
    text +=
        "ld.global.v2.b64 {%d2, %d3}, [%d1];\n"
        "st.shared.v2.b64 [%r3], {%d2, %d3};\nbar.warp.sync -1;\n";
  } else {
    text +=
        "bar.warp.sync -1;\nld.shared.v2.b64 {%d2, %d3}, [%r3];\n"
        "st.global.v2.b64 [%d1], {%d2, %d3};\n";
  }
  return text;
}

// The row's address in %r4, or in %d4 for a generic access.
std::string RowAddress(const OpcodeInfo& op, std::string* operand) {
  std::string text =
      "mul.lo.u32 %r4, %i, 5;\nadd.u32 %r4, %r4, 3;\nand.b32 %r4, %r4, 31;\n"
      "shl.b32 %r4, %r4, 4;\nadd.u32 %r4, %r2, %r4;\n";
  const bool generic = !op.Has("shared") && !op.Has("shared::cta");
  *operand = generic ? "[%d4]" : "[%r4]";
  if (generic) {
    text += "cvt.u64.u32 %d4, %r4;\ncvta.shared.u64 %d4, %d4;\n";
  }
  return text;
}

std::uint16_t HalfAt(const std::vector<u64>& in, std::size_t row,
                     std::size_t column) {
  std::uint16_t half = 0;
  std::memcpy(
      &half,
      reinterpret_cast<const std::byte*>(in.data()) + row * 16 + column * 2, 2);
  return half;
}

std::vector<u64> RandomRows(unsigned seed) {
  std::mt19937_64 random(seed);
  std::vector<u64> in(kRowCount * 2);
  for (u64& word : in) word = random();
  return in;
}

BodyCase RowsCase(const std::string& opcode, unsigned seed) {
  const OpcodeInfo op = ParseOpcode(opcode);
  const std::size_t count = op.Has("x4") ? 4 : op.Has("x2") ? 2 : 1;
  const bool loads = op.base == "ldmatrix";
  BodyCase test;
  test.opcode = opcode;
  test.module = RowsModule();
  test.in = RandomRows(seed);
  test.want_in = test.in;
  std::string operand;
  test.body = CopyRows(true) + RowAddress(op, &operand);
  std::vector<u64> given = RandomRows(seed + 1);
  for (std::size_t j = 0; j < count; ++j) {
    for (std::size_t lane = 0; lane < 32; ++lane) {
      for (std::size_t e = 0; e < 2; ++e) {
        // Row and column of the matrix that the lane's element e is.
        std::size_t row = lane / 4;
        std::size_t column = lane % 4 * 2 + e;
        if (op.Has("trans")) std::swap(row, column);
        const std::size_t at = RowOf(8 * j + row);
        if (loads) {
          test.Want(lane, j) |= u64{HalfAt(test.in, at, column)} << (16 * e);
        } else {
          const std::uint16_t half = HalfAt(given, lane, 2 * j + e);
          std::memcpy(reinterpret_cast<std::byte*>(test.want_in.data()) +
                          at * 16 + column * 2,
                      &half, 2);
        }
      }
    }
  }
  const std::string list = List(false, 10, count);
  if (loads) {
    test.body += opcode + " " + list + ", " + operand + ";\n";
    for (std::size_t j = 0; j < count; ++j) {
      test.body += "st.global.u32 [%out+" + std::to_string(8 * j) + "], %r" +
                   std::to_string(10 + j) + ";\n";
    }
    return test;
  }
  // What is stored comes from behind the rows.
  test.in.insert(test.in.end(), given.begin(), given.end());
  test.want_in.insert(test.want_in.end(), given.begin(), given.end());
  for (std::size_t j = 0; j < count; ++j) {
    test.body += "ld.global.u32 %r" + std::to_string(10 + j) + ", [%d1+" +
                 std::to_string(512 + 4 * j) + "];\n";
  }
  test.body += opcode + " " + operand + ", " + list + ";\n" + CopyRows(false);
  return test;
}

BodyCase MovmatrixCase() {
  BodyCase test;
  test.opcode = "movmatrix.sync.aligned.m8n8.trans.b16";
  test.in = RandomRows(11);
  for (std::size_t lane = 0; lane < 32; ++lane) {
    for (std::size_t e = 0; e < 2; ++e) {
      const std::size_t row = lane % 4 * 2 + e;
      const std::size_t column = lane / 4;
      // Lane 4 r + c / 2 brings element (r, c).
      test.Want(lane) |= u64{HalfAt(test.in, 4 * row + column / 2, column % 2)}
                         << (16 * e);
    }
  }
  test.body =
      "mul.wide.u32 %d1, %i, 16;\nadd.u64 %d1, %in, %d1;\n"
      "ld.global.u32 %r4, [%d1];\n" +
      test.opcode + " %r5, %r4;\nst.global.u32 [%out], %r5;\n";
  return test;
}

}  // namespace

std::vector<BodyCase> MmaCases() {
  std::vector<BodyCase> cases;
  unsigned seed = 1;
  for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
    const std::string_view base = GetOpcodeRow(row).base;
    for (const std::string& opcode : Spellings(row, 40)) {
      if (base == "mma") {
        for (const Values values :
             {Values::kPlain, Values::kWide, Values::kTiny, Values::kSpecial}) {
          cases.push_back(MmaCase(opcode, values, ++seed));
        }
      } else if (base == "ldmatrix" || base == "stmatrix") {
        cases.push_back(RowsCase(opcode, ++seed));
      }
    }
  }
  cases.push_back(AccumulatingCase());
  cases.push_back(MovmatrixCase());
  return cases;
}

}  // namespace pos::ptx::testing
