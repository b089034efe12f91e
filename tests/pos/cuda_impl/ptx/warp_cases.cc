// Shuffles, votes, matches, reductions: with all lanes, and by two halves of
// the warp at once, each with its own member mask.
#include <algorithm>
#include <string_view>

#include "body_case.h"
#include "pos/cuda_impl/ptx/opcodes.h"
#include "reference.h"
#include "spellings.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

// The lanes that execute together with `lane`, and whether it executes at all.
struct Group {
  const char* setup;  // leaves the mask in %r9 and who executes in %p1
  std::uint32_t (*mask)(std::size_t lane);  // 0: does not execute
};

constexpr Group kGroups[] = {
    {"mov.u32 %r9, -1;\nsetp.ge.s32 %p1, %i, 0;\n",
     [](std::size_t) { return 0xffffffffu; }},
    // Odd and even lanes come from the same instruction with two masks.
    {"and.b32 %r8, %i, 1;\nsetp.ne.u32 %p2, %r8, 0;\n"
     "selp.b32 %r9, 0xaaaaaaaa, 0x55555555, %p2;\nsetp.ge.s32 %p1, %i, 0;\n",
     [](std::size_t lane) {
       return lane % 2 != 0 ? 0xaaaaaaaau : 0x55555555u;
     }},
    // Lanes 3 … 18 alone.
    {"mov.u32 %r9, 0x7fff8;\nadd.u32 %r8, %i, -3;\n"
     "setp.lt.u32 %p1, %r8, 16;\n",
     [](std::size_t lane) { return lane >= 3 && lane < 19 ? 0x7fff8u : 0u; }},
};

bool In(std::uint32_t mask, std::size_t lane) {
  return lane < 32 && (mask >> lane & 1) != 0;
}

// What lanes bring: a word with repetitions, and a predicate.
u64 WordOf(std::size_t lane) {
  return (lane * lane * 2654435761u + 5) % 7 * 1000;
}
bool PredicateOf(std::size_t lane) { return lane % 3 != 0; }

constexpr const char* kBring = R"(mul.lo.u32 %r5, %i, %i;
mul.wide.u32 %d4, %r5, 2654435761U;
add.u64 %d4, %d4, 5;
rem.u64 %d4, %d4, 7;
mul.lo.u64 %d4, %d4, 1000;
cvt.u32.u64 %r4, %d4;
rem.u32 %r6, %i, 3;
setp.ne.u32 %p3, %r6, 0;
mov.u32 %r20, 77;
setp.lt.s32 %p4, %i, 0;
setp.lt.s32 %p5, %i, 0;
)";
constexpr const char* kShow = R"(
st.global.u32 [%out], %r20;
selp.u64 %d20, 1, 0, %p4;
st.global.u64 [%out+8], %d20;
selp.u64 %d20, 1, 0, %p5;
st.global.u64 [%out+16], %d20;
)";
constexpr u64 kUntouched = 77;

struct Result {
  u64 word = kUntouched;
  bool predicate = false;  // %p4
  bool second = false;     // %p5
};

Result Shuffled(const OpcodeInfo& op, std::size_t lane, std::uint32_t mask,
                std::uint32_t by, std::uint32_t clamp) {
  const auto l = static_cast<std::int32_t>(lane);
  const auto segment = static_cast<std::int32_t>(clamp >> 8 & 31);
  const auto limit = static_cast<std::int32_t>(clamp & 31);
  const std::int32_t highest = (l & segment) | (limit & ~segment);
  const std::int32_t lowest = l & segment;
  const auto b = static_cast<std::int32_t>(by & 31);
  std::int32_t from = 0;
  bool inside = false;
  if (op.Has("up")) {
    from = l - b;
    inside = from >= highest;
  } else if (op.Has("down")) {
    from = l + b;
    inside = from <= highest;
  } else if (op.Has("bfly")) {
    from = l ^ b;
    inside = from <= highest;
  } else {
    from = lowest | (b & ~segment);
    inside = from <= highest;
  }
  Result result;
  result.second = inside;
  if (!inside) from = l;
  // A lane outside of the mask has nothing to give: undefined, not tested.
  result.word = In(mask, static_cast<std::size_t>(from))
                    ? WordOf(static_cast<std::size_t>(from))
                    : ~u64{0};
  return result;
}

template <typename F>
void ForLanes(std::uint32_t mask, F f) {
  for (std::size_t lane = 0; lane < 32; ++lane) {
    if (In(mask, lane)) f(lane);
  }
}

Result Voted(const OpcodeInfo& op, std::uint32_t mask) {
  bool all = true;
  bool any = false;
  std::uint32_t ballot = 0;
  ForLanes(mask, [&](std::size_t lane) {
    all = all && PredicateOf(lane);
    any = any || PredicateOf(lane);
    if (PredicateOf(lane)) ballot |= 1u << lane;
  });
  Result result;
  if (op.Has("ballot")) {
    result.word = ballot;
  } else {
    result.predicate = op.Has("all") ? all : op.Has("any") ? any : all || !any;
  }
  return result;
}

Result Matched(const OpcodeInfo& op, std::size_t lane, std::uint32_t mask) {
  std::uint32_t same = 0;
  ForLanes(mask, [&](std::size_t other) {
    if (WordOf(other) == WordOf(lane)) same |= 1u << other;
  });
  Result result;
  result.word = same;
  if (op.Has("all")) {
    result.second = same == mask;
    result.word = result.second ? mask : 0;
  }
  return result;
}

Result Reduced(const OpcodeInfo& op, std::uint32_t mask) {
  const Type type = op.key.type[0];
  bool first = true;
  u64 value = 0;
  ForLanes(mask, [&](std::size_t lane) {
    // Words of both signs.
    const u64 word = CutTo(static_cast<Wide>(WordOf(lane)) - 3000, 4);
    const Wide x = IntegerOf(value, type);
    const Wide y = IntegerOf(word, type);
    Wide next = y;
    if (!first) {
      next = op.Has("add")   ? x + y
             : op.Has("min") ? std::min(x, y)
             : op.Has("max") ? std::max(x, y)
             : op.Has("and") ? static_cast<Wide>(value & word)
             : op.Has("or")  ? static_cast<Wide>(value | word)
                             : static_cast<Wide>(value ^ word);
    }
    value = CutTo(next, 4);
    first = false;
  });
  Result result;
  result.word = value;
  return result;
}

BodyCase CaseOf(const std::string& opcode, const Group& group,
                const std::string& operands) {
  BodyCase test;
  test.opcode = opcode;
  test.body = std::string(group.setup) + kBring;
  const std::string_view base = ParseOpcode(opcode).base;
  if (base == "redux") test.body += "add.u32 %r4, %r4, -3000;\n";
  test.body +=
      "@!%p1 bra SHOW;\n" + opcode + " " + operands + ";\nSHOW:" + kShow;
  return test;
}

template <typename F>
void Expect(BodyCase* test, const Group& group, F result_of) {
  for (std::size_t lane = 0; lane < 32; ++lane) {
    const std::uint32_t mask = group.mask(lane);
    Result result;
    if (mask != 0) result = result_of(lane, mask);
    test->Want(lane, 0) = result.word;
    test->Want(lane, 1) = result.predicate ? 1 : 0;
    test->Want(lane, 2) = result.second ? 1 : 0;
  }
}

// Distances and clamps as the compiler writes them for widths 32, 16, 8; the
// group's lanes among themselves only.
void AddShuffles(const std::string& opcode, std::vector<BodyCase>* cases) {
  const OpcodeInfo op = ParseOpcode(opcode);
  for (const Group& group : kGroups) {
    for (const std::uint32_t width : {32u, 16u, 8u}) {
      for (const std::uint32_t by : {0u, 1u, 2u, 6u, 16u, 35u}) {
        const std::uint32_t segment = (32 - width) << 8;
        const std::uint32_t clamp = op.Has("up") ? segment : segment | 31;
        BodyCase test = CaseOf(opcode, group,
                               "%r20|%p5, %r4, " + std::to_string(by) + ", " +
                                   std::to_string(clamp) + ", %r9");
        bool defined = true;
        Expect(&test, group, [&](std::size_t lane, std::uint32_t mask) {
          const Result result = Shuffled(op, lane, mask, by, clamp);
          defined = defined && result.word != ~u64{0};
          return result;
        });
        if (defined) cases->push_back(std::move(test));
      }
    }
  }
}

void AddOthers(const std::string& opcode, std::vector<BodyCase>* cases) {
  const OpcodeInfo op = ParseOpcode(opcode);
  for (const Group& group : kGroups) {
    std::string operands;
    if (op.base == "vote") {
      operands = op.Has("ballot") ? "%r20, %p3, %r9" : "%p4, %p3, %r9";
    } else if (op.base == "match") {
      operands = op.Has("all") ? "%r20|%p5, " : "%r20, ";
      operands += op.Has("b64") ? "%d4, %r9" : "%r4, %r9";
    } else if (op.base == "redux") {
      operands = "%r20, %r4, %r9";
    } else if (op.base == "elect") {
      operands = "%r20|%p5, %r9";
    } else {
      operands = "%r9";  // bar.warp.sync
    }
    BodyCase test = CaseOf(opcode, group, operands);
    Expect(&test, group, [&](std::size_t lane, std::uint32_t mask) {
      if (op.base == "vote") return Voted(op, mask);
      if (op.base == "match") return Matched(op, lane, mask);
      if (op.base == "redux") return Reduced(op, mask);
      Result result;
      if (op.base != "elect") return result;
      const auto leader = static_cast<std::size_t>(__builtin_ctz(mask));
      result.word = leader;
      result.second = lane == leader;
      return result;
    });
    cases->push_back(std::move(test));
  }
}

}  // namespace

std::vector<BodyCase> WarpCases() {
  std::vector<BodyCase> cases;
  for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
    if (GetOpcodeRow(row).shape != Shape::kCollective) continue;
    for (const std::string& opcode : Spellings(row, 40)) {
      if (GetOpcodeRow(row).base == "shfl") {
        AddShuffles(opcode, &cases);
      } else {
        AddOthers(opcode, &cases);
      }
    }
  }
  return cases;
}

}  // namespace pos::ptx::testing
