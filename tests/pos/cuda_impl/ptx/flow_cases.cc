// Branches, calls, exits and barriers. What many lanes make of them together is
// in divergence_test.cc and barrier_test.cc.
#include <string_view>

#include "body_case.h"
#include "pos/cuda_impl/ptx/opcodes.h"
#include "spellings.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

constexpr std::int32_t kLaunchFailed = 719;

BodyCase BraCase(const std::string& opcode) {
  BodyCase test;
  test.opcode = opcode;
  const bool uniform = opcode == "bra.uni";
  test.body = "mov.u32 %r2, 1;\nsetp.lt.u32 %p0, %i, " +
              std::string(uniform ? "32" : "10") + ";\n@%p0 " + opcode +
              " SKIP;\nmov.u32 %r2, 2;\nSKIP:\nst.global.u32 [%out], %r2;\n";
  for (std::size_t i = 0; i < 32; ++i) {
    test.Want(i) = uniform || i < 10 ? 1 : 2;
  }
  return test;
}

BodyCase BrxCase(const std::string& opcode) {
  BodyCase test;
  test.opcode = opcode;
  const bool uniform = opcode == "brx.idx.uni";
  test.body =
      std::string(uniform ? "mov.u32 %r2, 2;\n" : "rem.u32 %r2, %i, 3;\n") +
      "TARGETS: .branchtargets A, B, C;\n" + opcode +
      " %r2, TARGETS;\n"
      "A: mov.u32 %r3, 10;\nbra.uni END;\n"
      "B: mov.u32 %r3, 11;\nbra.uni END;\n"
      "C: mov.u32 %r3, 12;\nEND: st.global.u32 [%out], %r3;\n";
  for (std::size_t i = 0; i < 32; ++i) {
    test.Want(i) = 10 + (uniform ? 2 : i % 3);
  }
  return test;
}

// A function that writes to its frame, calls another and returns early.
constexpr const char* kFunctions = R"(
.func (.param .b32 half_r) half(.param .b32 half_x)
{
.reg .b32 %a;
ld.param.b32 %a, [half_x];
shr.u32 %a, %a, 1;
st.param.b32 [half_r], %a;
ret;
}
.func (.param .b32 odd_r) odd(.param .b32 odd_x)
{
.reg .b32 %a, %b;
.reg .pred %p;
ld.param.b32 %a, [odd_x];
and.b32 %b, %a, 1;
setp.ne.u32 %p, %b, 0;
@%p bra ODD;
{
.param .b32 x;
.param .b32 y;
st.param.b32 [x], %a;
call (y), half, (x);
ld.param.b32 %a, [y];
}
st.param.b32 [odd_r], %a;
ret;
ODD:
mul.lo.u32 %a, %a, 3;
st.param.b32 [odd_r], %a;
ret.uni;
}
)";

BodyCase CallCase(const std::string& opcode, bool indirect) {
  BodyCase test;
  test.opcode = opcode;
  test.module = kFunctions;
  test.body = R"({
.param .b32 x;
.param .b32 y;
st.param.b32 [x], %i;
)";
  test.body += indirect ? "mov.u64 %d1, odd;\n"
                          "P: .callprototype (.param .b32 _) _ "
                          "(.param .b32 _);\n" +
                              opcode + " (y), %d1, (x), P;\n"
                        : opcode + " (y), odd, (x);\n";
  test.body += "ld.param.b32 %r2, [y];\n}\nst.global.u32 [%out], %r2;\n";
  for (std::size_t i = 0; i < 32; ++i) {
    test.Want(i) = i % 2 == 0 ? i / 2 : 3 * i;
  }
  return test;
}

BodyCase ExitCase(const std::string& opcode) {
  BodyCase test;
  test.opcode = opcode;
  test.body =
      "mov.u32 %r2, 1;\nst.global.u32 [%out], %r2;\n"
      "setp.lt.u32 %p0, %i, 5;\n@%p0 " +
      opcode + ";\nmov.u32 %r2, 2;\nst.global.u32 [%out], %r2;\n";
  for (std::size_t i = 0; i < 32; ++i) test.Want(i) = i < 5 ? 1 : 2;
  return test;
}

BodyCase TrapCase(const std::string& opcode) {
  BodyCase test;
  test.opcode = opcode;
  test.body = "setp.eq.u32 %p0, %i, 9;\n@%p0 " + opcode + ";\n";
  test.error = kLaunchFailed;
  return test;
}

// Four warps write, meet, and read what another warp wrote; every second one
// arrives without waiting where the instruction allows it.
BodyCase BarrierCase(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  const bool arrives = op.Has("arrive") && !op.Has("cluster");
  BodyCase test;
  test.opcode = opcode;
  test.threads = 128;
  std::string wait = opcode + " 1;\n";
  if (arrives) {
    // Warps 0 and 1 produce, 2 and 3 consume.
    wait = "setp.lt.u32 %p0, %i, 64;\n@!%p0 bra CONSUME;\n" + opcode +
           " 1, 128;\nbra DONE;\nCONSUME: bar.sync 1, 128;\nDONE:\n";
  }
  if (op.Has("cluster")) {
    wait = (op.Has("arrive") ? opcode : "barrier.cluster.arrive") + ";\n" +
           (op.Has("wait") ? opcode : "barrier.cluster.wait") + ";\n";
  }
  if (op.Has("red")) {
    wait = "setp.lt.u32 %p1, %i, 100;\n" + opcode +
           (op.Has("popc") ? " %r10, 1, %p1;\n" : " %p2, 1, %p1;\n");
  }
  test.body =
      ".shared .b32 room[128];\nmov.u32 %r2, room;\n"
      "shl.b32 %r3, %i, 2;\nadd.u32 %r4, %r2, %r3;\n"
      "st.shared.u32 [%r4], %i;\n" +
      wait +
      "xor.b32 %r5, %r3, 256;\nadd.u32 %r4, %r2, %r5;\n"
      "mov.u32 %r6, 0;\nsetp.lt.u32 %p3, %i, 64;\n";
  if (arrives) test.body += "@%p3 bra END;\n";
  test.body += "ld.shared.u32 %r6, [%r4];\nEND: st.global.u32 [%out], %r6;\n";
  if (op.Has("red")) {
    if (!op.Has("popc")) test.body += "selp.u32 %r10, 1, 0, %p2;\n";
    test.body += "st.global.u32 [%out+8], %r10;\n";
  }
  for (std::size_t i = 0; i < 128; ++i) {
    test.Want(i) = arrives && i < 64 ? 0 : i ^ 64;
    if (op.Has("popc")) test.Want(i, 1) = 100;
    if (op.Has("or")) test.Want(i, 1) = 1;
  }
  return test;
}

// Instructions that leave no trace: what is around them does.
BodyCase PlainCase(const std::string& opcode, const std::string& operands) {
  BodyCase test;
  test.opcode = opcode;
  test.body = "add.u32 %r2, %i, 1;\n" + opcode + operands +
              ";\nst.global.u32 [%out], %r2;\n";
  for (std::size_t i = 0; i < 32; ++i) test.Want(i) = i + 1;
  return test;
}

BodyCase ActivemaskCase(const std::string& opcode) {
  BodyCase test;
  test.opcode = opcode;
  test.body = "mov.u32 %r2, 5;\nsetp.lt.u32 %p0, %i, 7;\n@%p0 " + opcode +
              " %r2;\nst.global.u32 [%out], %r2;\n";
  for (std::size_t i = 0; i < 32; ++i) test.Want(i) = i < 7 ? 127 : 5;
  return test;
}

// Functions take different amounts for each lane, fill them and give them back
// when they return; the kernel gives back what it took itself.
BodyCase StackCase(const std::string& opcode) {
  const bool wide = ParseOpcode(opcode).Has("u64");
  const std::string type = wide ? "u64" : "u32";
  const std::string r = wide ? "%d" : "%r";
  const std::string widen = wide ? "mov.u64" : "cvt.u64.u32";
  BodyCase test;
  test.opcode = opcode;
  test.threads = 64;
  test.module = R"(
.func (.param .b32 take_r) take(.param .b32 take_n)
{
.reg .b32 %r<10>;
.reg .b64 %d<10>;
.reg .pred %p<3>;
ld.param.b32 %r1, [take_n];
shl.b32 %r2, %r1, 2;
cvt.u64.u32 %d2, %r2;
)" +
                ("alloca." + type + " " + r + "3, " + r + "2, 32;\n" + widen +
                 " %d4, " + r + "3;\n") +
                R"(
and.b64 %d5, %d4, 31;
cvt.u32.u64 %r9, %d5;
mov.u32 %r4, 0;
FILL:
mul.lo.u32 %r5, %r4, %r1;
st.local.u32 [%d4], %r5;
add.u64 %d4, %d4, 4;
add.u32 %r4, %r4, 1;
setp.lt.u32 %p1, %r4, %r1;
@%p1 bra FILL;
setp.lt.u32 %p2, %r1, 4;
@%p2 bra EARLY;
SUM:
sub.u64 %d4, %d4, 4;
ld.local.u32 %r6, [%d4];
add.u32 %r9, %r9, %r6;
sub.u32 %r4, %r4, 1;
setp.ne.u32 %p1, %r4, 0;
@%p1 bra SUM;
st.param.b32 [take_r], %r9;
ret;
EARLY:
mov.u32 %r8, 99;
st.param.b32 [take_r], %r8;
}
)";
  const std::string call =
      "st.param.b32 [x], %r2;\ncall (y), take, (x);\nld.param.b32 ";
  test.body =
      "add.u32 %r2, %i, 1;\nmov.u32 %r9, 64;\nmov.u64 %d9, 64;\n"
      "{\n.param .b32 x;\n.param .b32 y;\n"
      "stacksave." +
      type + " " + r + "10;\n" + call +
      "%r3, [y];\n"
      "add.u32 %r2, %r2, %i;\n" +
      call +
      "%r4, [y];\n}\n"
      "stacksave." +
      type + " " + r +
      "11;\n"
      "alloca." +
      type + " " + r + "12, " + r +
      "9;\n"
      "stackrestore." +
      type + " " + r +
      "11;\n"
      "alloca." +
      type + " " + r + "13, " + r +
      "9;\n"
      "sub." +
      type + " " + r + "14, " + r + "10, " + r +
      "11;\n"
      "sub." +
      type + " " + r + "15, " + r + "12, " + r +
      "13;\n"
      "sub." +
      type + " " + r + "16, " + r + "11, " + r +
      "13;\n"
      "st.global.u32 [%out], %r3;\nst.global.u32 [%out+8], %r4;\n"
      "st.global." +
      type + " [%out+16], " + r +
      "14;\n"
      "st.global." +
      type + " [%out+24], " + r +
      "15;\n"
      "st.global." +
      type + " [%out+32], " + r + "16;\n";
  for (std::size_t i = 0; i < 64; ++i) {
    for (const std::size_t call_number : {0u, 1u}) {
      const u64 n = i + 1 + call_number * i;
      test.Want(i, call_number) = n < 4 ? 99 : n * n * (n - 1) / 2;
    }
    test.Want(i, 4) = 64;
  }
  return test;
}

std::string OperandsOf(const OpcodeInfo& op) {
  if (op.base == "prefetch" || op.base == "prefetchu") return " [%in]";
  if (op.base == "applypriority" || op.base == "discard") return " [%in], 128";
  if (op.Has("tensormap::generic") && op.Has("acquire")) return " [%in], 128";
  if (op.base == "setmaxnreg") return " 64";
  if (op.Has("wait_group")) return " 3";
  if (op.Has("bulk") && op.Has("prefetch")) {
    return op.Has("L2::cache_hint") ? " [%in], 16, %d0" : " [%in], 16";
  }
  if (op.base == "pmevent") return " 3";
  return op.base == "nanosleep" ? " 100" : "";
}

void AddRow(std::size_t row, std::vector<BodyCase>* cases) {
  const OpcodeRow& about = GetOpcodeRow(row);
  for (const std::string& opcode : Spellings(row, 40)) {
    switch (about.shape) {
      case Shape::kBra:
        cases->push_back(BraCase(opcode));
        break;
      case Shape::kBrx:
        cases->push_back(BrxCase(opcode));
        break;
      case Shape::kCall:
        cases->push_back(CallCase(opcode, false));
        cases->push_back(CallCase(opcode, true));
        break;
      case Shape::kRet:
      case Shape::kExit:
        cases->push_back(ExitCase(opcode));
        break;
      case Shape::kTrap:
        cases->push_back(TrapCase(opcode));
        break;
      case Shape::kBarrier:
        cases->push_back(BarrierCase(opcode));
        break;
      case Shape::kActivemask:
        cases->push_back(ActivemaskCase(opcode));
        break;
      case Shape::kStack:
        cases->push_back(StackCase(opcode));
        break;
      case Shape::kFence:
      case Shape::kNanosleep:
      case Shape::kNothing:
        cases->push_back(PlainCase(opcode, OperandsOf(ParseOpcode(opcode))));
        break;
      default:
        break;
    }
  }
}

}  // namespace

std::vector<BodyCase> FlowCases() {
  std::vector<BodyCase> cases;
  for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
    AddRow(row, &cases);
  }
  return cases;
}

}  // namespace pos::ptx::testing
