// Asynchronous copies, mbarriers, addresses in a cluster, policies: one warp
// each. What several warps make of them is in mbarrier_test.cc and
// async_copy_test.cc.
#include <string_view>

#include "body_case.h"
#include "pos/cuda_impl/ptx/opcodes.h"
#include "spellings.h"

namespace pos::ptx::testing {
namespace {

using u64 = std::uint64_t;

bool NamesSpace(const OpcodeInfo& op) {
  return op.Has("shared") || op.Has("shared::cta") || op.Has("shared::cluster");
}

// A barrier for `count` arrivals at shared address `bar`; %d1 is its address as
// `op` wants it, %p0 holds in lane 0 only.
std::string BarrierFor(const OpcodeInfo& op, int count) {
  std::string text =
      ".shared .align 8 .b64 bar;\nmov.u64 %d1, bar;\n"
      "setp.eq.u32 %p0, %i, 0;\n";
  if (!NamesSpace(op)) text += "cvta.shared.u64 %d1, %d1;\n";
  if (count != 0) {
    text += "@%p0 mbarrier.init.shared.b64 [bar], " + std::to_string(count) +
            ";\nbar.warp.sync -1;\n";
  }
  return text;
}

std::string TestParity(const char* predicate) {
  return std::string("mbarrier.test_wait.parity.shared.b64 ") + predicate +
         ", [bar], 0;\n";
}

std::string Store(const char* reg, int result) {
  return "st.global.u32 [%out+" + std::to_string(8 * result) + "], " + reg +
         ";\n";
}

std::string StorePredicate(const char* predicate, int result) {
  return std::string("selp.u32 %r9, 1, 0, ") + predicate + ";\n" +
         Store("%r9", result);
}

BodyCase InitCase(const std::string& opcode, const OpcodeInfo& op) {
  BodyCase test;
  test.opcode = opcode;
  test.body = BarrierFor(op, 0);
  if (op.Has("inval")) {
    test.body += "@%p0 mbarrier.init.shared.b64 [bar], 5;\n@%p0 " + opcode +
                 " [%d1];\n@%p0 mbarrier.init.shared.b64 [bar], 32;\n";
  } else {
    test.body += "@%p0 " + opcode + " [%d1], 32;\n";
  }
  test.body +=
      "bar.warp.sync -1;\n"
      "mbarrier.arrive.shared.b64 %d2, [bar];\n"
      "mbarrier.pending_count.b64 %r2, %d2;\n" +
      TestParity("%p1") + Store("%r2", 0) + StorePredicate("%p1", 1);
  for (std::size_t i = 0; i < 32; ++i) {
    test.Want(i, 0) = 32 - i;
    test.Want(i, 1) = 1;
  }
  return test;
}

BodyCase TxCase(const std::string& opcode, const OpcodeInfo& op) {
  BodyCase test;
  test.opcode = opcode;
  const bool expects = op.Has("expect_tx");
  const std::string plain = "mbarrier.complete_tx.shared.b64 [bar], 4096;\n";
  test.body =
      BarrierFor(op, 1) + "@%p0 " +
      (expects ? opcode + " [%d1], 4096;\n"
               : "mbarrier.expect_tx.shared.b64 [bar], 4096;\n") +
      "@%p0 mbarrier.arrive.shared.b64 %d2, [bar];\n" + TestParity("%p1") +
      "@%p0 " + (expects ? plain : opcode + " [%d1], 4096;\n") +
      TestParity("%p2") + StorePredicate("%p1", 0) + StorePredicate("%p2", 1);
  for (std::size_t i = 0; i < 32; ++i) test.Want(i, 1) = 1;
  return test;
}

// Each lane arrives at a barrier for 33, lane 0 once more; then the count of
// the next phase is looked at.
BodyCase ArriveCase(const std::string& opcode, const OpcodeInfo& op) {
  BodyCase test;
  test.opcode = opcode;
  const bool remote = op.Has("shared::cluster");
  const bool expects = op.Has("expect_tx");
  const bool drops = op.Has("arrive_drop");
  std::string value;
  if (expects) value = ", 8";
  if (op.Has("noComplete") || op.Has("relaxed"))
    value = expects ? ", 8" : ", 1";
  test.body =
      BarrierFor(op, 33) + opcode + (remote ? " _" : " %d2") + ", [%d1]" +
      value + ";\n" + TestParity("%p1") +
      (expects ? "@%p0 mbarrier.complete_tx.shared.b64 [bar], 256;\n" : "") +
      "@%p0 mbarrier.arrive.shared.b64 %d3, [bar], 1;\n" + TestParity("%p2") +
      "@%p0 mbarrier.arrive.shared.b64 %d4, [bar];\n"
      "@%p0 mbarrier.pending_count.b64 %r3, %d4;\n" +
      StorePredicate("%p1", 0) + StorePredicate("%p2", 1) +
      "@%p0 st.global.u32 [%out+16], %r3;\n";
  if (!remote) {
    test.body += "mbarrier.pending_count.b64 %r2, %d2;\n" + Store("%r2", 3);
  }
  for (std::size_t i = 0; i < 32; ++i) {
    test.Want(i, 1) = 1;
    test.Want(i, 3) = remote ? 0 : 33 - i;
  }
  test.Want(0, 2) = drops ? 1 : 33;
  return test;
}

BodyCase WaitCase(const std::string& opcode, const OpcodeInfo& op) {
  BodyCase test;
  test.opcode = opcode;
  std::string value = op.Has("parity") ? ", 0" : ", %d3";
  if (op.Has("try_wait") && op.Has("acquire")) value += ", 20";
  test.body = BarrierFor(op, 2) +
              ".shared .b64 state;\n"
              "@%p0 mbarrier.arrive.shared.b64 %d2, [bar];\n"
              "@%p0 st.shared.b64 [state], %d2;\nbar.warp.sync -1;\n"
              "ld.shared.b64 %d3, [state];\n" +
              opcode + " %p1, [%d1]" + value +
              ";\n@%p0 mbarrier.arrive.shared.b64 %d2, [bar];\n" + opcode +
              " %p2, [%d1]" + value + ";\n" + StorePredicate("%p1", 0) +
              StorePredicate("%p2", 1);
  for (std::size_t i = 0; i < 32; ++i) test.Want(i, 1) = 1;
  return test;
}

BodyCase PendingCase(const std::string& opcode, const OpcodeInfo& op) {
  BodyCase test;
  test.opcode = opcode;
  test.body = BarrierFor(op, 40) +
              "mbarrier.arrive.noComplete.shared.b64 %d2, "
              "[bar], 1;\nmov.u32 %r2, 7;\nsetp.lt.u32 %p1, %i, 20;\n@%p1 " +
              opcode + " %r2, %d2;\n" + Store("%r2", 0);
  for (std::size_t i = 0; i < 32; ++i) test.Want(i) = i < 20 ? 40 - i : 7;
  return test;
}

BodyCase MbarrierCase(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  if (op.Has("pending_count")) return PendingCase(opcode, op);
  if (op.Has("init") || op.Has("inval")) return InitCase(opcode, op);
  if (op.Has("arrive") || op.Has("arrive_drop")) return ArriveCase(opcode, op);
  if (op.Has("test_wait") || op.Has("try_wait")) return WaitCase(opcode, op);
  return TxCase(opcode, op);
}

BodyCase CopiesArriveCase(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  BodyCase test;
  test.opcode = opcode;
  const bool noinc = op.Has("noinc");
  test.in.assign(32, 77);
  test.body = BarrierFor(op, noinc ? 33 : 1) +
              ".shared .align 16 .b8 room[256];\nmov.u32 %r2, room;\n"
              "shl.b32 %r3, %i, 3;\nadd.u32 %r2, %r2, %r3;\n"
              "cvt.u64.u32 %d4, %r3;\nadd.u64 %d4, %in, %d4;\n"
              "cp.async.ca.shared.global [%r2], [%d4], 8;\n" +
              opcode + " [%d1];\n" + TestParity("%p1") +
              "@%p0 mbarrier.arrive.shared.b64 %d2, [bar];\n" +
              TestParity("%p2") + "ld.shared.b64 %d5, [%r2];\n" +
              StorePredicate("%p1", 0) + StorePredicate("%p2", 1) +
              "st.global.b64 [%out+16], %d5;\n";
  for (std::size_t i = 0; i < 32; ++i) {
    test.Want(i, 1) = 1;
    test.Want(i, 2) = 77;
  }
  return test;
}

unsigned char InputByte(std::size_t at) {
  return static_cast<unsigned char>(at * 29 + 3);
}

std::vector<u64> InputOf(std::size_t bytes) {
  std::vector<u64> in(bytes / 8);
  auto* data = reinterpret_cast<unsigned char*>(in.data());
  for (std::size_t i = 0; i < bytes; ++i) data[i] = InputByte(i);
  return in;
}

// Sixteen bytes that lane `i` finds: `given` of its `bytes` from the input, the
// rest of them zero, what follows as it was (0xee).
void WantCopy(BodyCase* test, std::size_t i, std::uint32_t bytes,
              std::uint32_t given) {
  for (std::uint32_t b = 0; b < 16; ++b) {
    const u64 value = b < given ? InputByte(16 * i + b) : b < bytes ? 0 : 0xee;
    test->Want(i, b / 8) |= value << (8 * (b % 8));
  }
}

enum class Given { kAll, kSome, kIgnored };

// With offsets of both addresses, and for lanes that a guard lets through.
BodyCase CopyCase(const std::string& opcode, std::uint32_t bytes, Given given) {
  const OpcodeInfo op = ParseOpcode(opcode);
  BodyCase test;
  test.opcode = opcode;
  test.in = InputOf(512);
  std::string last;
  if (given == Given::kSome) last = ", %r5";
  if (given == Given::kIgnored) last = ", !%p2";
  if (op.Has("L2::cache_hint")) last += ", %d9";
  test.body =
      "createpolicy.fractional.L2::evict_last.b64 %d9, 0f3F800000;\n"
      ".shared .align 16 .b8 room[512];\nmov.u32 %r2, room;\n"
      "shl.b32 %r3, %i, 4;\nadd.u32 %r2, %r2, %r3;\n"
      "mov.b64 %d2, 0xeeeeeeeeeeeeeeee;\nst.shared.v2.b64 [%r2], {%d2, %d2};\n"
      "cvt.u64.u32 %d3, %r3;\nadd.u64 %d3, %in, %d3;\n"
      "sub.u64 %d3, %d3, 64;\nsub.u32 %r4, %r2, 32;\n"
      "rem.u32 %r5, %i, " +
      std::to_string(bytes + 1) +
      ";\n"
      "setp.gt.u32 %p1, %i, 2;\nsetp.gt.u32 %p2, %i, 9;\n"
      "@%p1 " +
      opcode + " [%r4+32], [%d3+64], " + std::to_string(bytes) + last +
      ";\ncp.async.wait_all;\n"
      "ld.shared.v2.b64 {%d4, %d5}, [%r2];\n"
      "st.global.v2.b64 [%out], {%d4, %d5};\n";
  for (std::size_t i = 0; i < 32; ++i) {
    std::uint32_t some = bytes;
    if (given == Given::kSome)
      some = static_cast<std::uint32_t>(i) % (bytes + 1);
    if (given == Given::kIgnored && i <= 9) some = 0;
    WantCopy(&test, i, i > 2 ? bytes : 0, i > 2 ? some : 0);
  }
  return test;
}

void AddCopies(const std::string& opcode, std::vector<BodyCase>* cases) {
  const bool any = ParseOpcode(opcode).Has("ca");
  for (const std::uint32_t bytes : {4u, 8u, 16u}) {
    if (!any && bytes != 16) continue;
    for (const Given given : {Given::kAll, Given::kSome, Given::kIgnored}) {
      cases->push_back(CopyCase(opcode, bytes, given));
    }
  }
}

// 64 bytes by lane 3, with offsets: global to shared, shared to shared or
// shared to global.
BodyCase BulkCase(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  BodyCase test;
  test.opcode = opcode;
  test.in = InputOf(128);
  const bool out = op.Has("bulk_group");
  const bool inside = !out && !op.Has("global");
  std::string last = out ? "" : ", [bar]";
  if (op.Has("multicast::cluster")) last += ", %h1";
  if (op.Has("L2::cache_hint")) last += ", %d9";
  if (op.Has("cp_mask")) last += ", %h1";
  test.body =
      ".shared .align 16 .b8 room[256];\n.shared .align 8 .b64 bar;\n"
      "mov.b64 %d9, 0;\nmov.u32 %r2, room;\nmov.b16 %h1, 0x0ff1;\n"
      "setp.eq.u32 %p0, %i, 3;\n@%p0 mbarrier.init.shared.b64 [bar], 1;\n"
      "@%p0 mbarrier.arrive.expect_tx.shared.b64 %d2, [bar], 64;\n"
      "shl.b32 %r3, %i, 2;\nadd.u32 %r4, %r2, %r3;\n"
      "cvt.u64.u32 %d3, %r3;\nadd.u64 %d3, %in, %d3;\n"
      "ld.global.b32 %r5, [%d3];\nst.shared.b32 [%r4+128], %r5;\n"
      "mov.b32 %r6, 0;\nst.shared.b32 [%r4], %r6;\nbar.warp.sync -1;\n@%p0 " +
      opcode;
  if (out) {
    test.body += " [%in+64], [%r2+128], 64" + last + ";\n";
    test.want_in = test.in;
    auto* bytes = reinterpret_cast<unsigned char*>(test.want_in.data());
    for (std::size_t i = 0; i < 64; ++i) {
      const bool masked = op.Has("cp_mask") && (0x0ff1 >> (i % 16) & 1) == 0;
      if (!masked) bytes[64 + i] = InputByte(i);
    }
    test.body += "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;\n";
    return test;
  }
  test.body += std::string(" [%r2+32], ") + (inside ? "[%r2+128]" : "[%in]") +
               ", 64" + last + ";\n" + TestParity("%p1") +
               "ld.shared.b32 %r7, [%r4+32];\n" + Store("%r7", 0) +
               StorePredicate("%p1", 1);
  for (std::size_t i = 0; i < 32; ++i) {
    for (std::size_t b = 0; b < 4; ++b) {
      const std::size_t at = 4 * i + b;  // in the 64 bytes, then zeros; then
                                         // the copy at 128
      const u64 value = at < 64   ? InputByte(at)
                        : at < 96 ? 0
                                  : InputByte(at - 96);
      test.Want(i, 0) |= value << (8 * b);
    }
    test.Want(i, 1) = 1;
  }
  return test;
}

BodyCase BulkZeroCase(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  BodyCase test;
  test.opcode = opcode;
  test.body =
      ".shared .align 16 .b8 room[256];\nmov.u64 %d1, room;\n"
      "mul.wide.u32 %d2, %i, 8;\nadd.u64 %d3, %d1, %d2;\n"
      "mov.b64 %d4, 5;\nst.shared.b64 [%d3], %d4;\nbar.warp.sync -1;\n"
      "setp.eq.u32 %p0, %i, 0;\n" +
      std::string(NamesSpace(op) ? "" : "cvta.shared.u64 %d1, %d1;\n") +
      "@%p0 " + opcode +
      " [%d1+16], 120, 0;\nbar.warp.sync -1;\n"
      "ld.shared.b64 %d4, [%d3];\nst.global.b64 [%out], %d4;\n";
  for (std::size_t i = 0; i < 32; ++i) test.Want(i) = i < 2 || i >= 17 ? 5 : 0;
  return test;
}

BodyCase ClusterCase(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  const bool wide = op.Has("u64");
  const std::string from = wide ? "%d3" : "%r3";
  BodyCase test;
  test.opcode = opcode;
  test.body = ".shared .align 8 .b64 word;\nmov.u64 %d3, word;\n" +
              std::string(NamesSpace(op) ? "" : "cvta.shared.u64 %d3, %d3;\n") +
              "cvt.u32.u64 %r3, %d3;\nmov.u32 %r4, %cluster_ctarank;\n"
              "setp.lt.u32 %p0, %i, 12;\n";
  if (op.base == "mapa") {
    const std::string to = wide ? "%d4" : "%r5";
    const std::string type = wide ? "u64" : "u32";
    test.body += "mov." + type + " " + to + ", 1;\n@%p0 " + opcode + " " + to +
                 ", " + from + ", %r4;\nsub." + type + " " + to + ", " + to +
                 ", " + from + ";\n@%p0 st.global." + type + " [%out], " + to +
                 ";\n";
  } else {
    test.body += "mov.u32 %r5, 9;\n@%p0 " + opcode + " %r5, " + from + ";\n" +
                 Store("%r5", 0);
    for (std::size_t i = 12; i < 32; ++i) test.Want(i) = 9;
  }
  return test;
}

// A policy is good for one thing: to be handed to an access.
BodyCase PolicyCase(const std::string& opcode) {
  const OpcodeInfo op = ParseOpcode(opcode);
  BodyCase test;
  test.opcode = opcode;
  test.in = {4711};
  std::string sources;
  if (op.Has("range")) sources = ", [%in], 4096, 8192";
  if (op.Has("cvt")) sources = ", %d3";
  test.body = "mov.b64 %d3, 0;\n" + opcode + " %d2" + sources +
              ";\nld.global.L2::cache_hint.b64 %d4, [%in], %d2;\n"
              "st.global.b64 [%out], %d4;\n";
  for (std::size_t i = 0; i < 32; ++i) test.Want(i) = 4711;
  return test;
}

}  // namespace

std::vector<BodyCase> AsyncCases() {
  std::vector<BodyCase> cases;
  for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
    const OpcodeRow& about = GetOpcodeRow(row);
    for (const std::string& opcode : Spellings(row, 40)) {
      switch (about.shape) {
        case Shape::kMbarrier:
          cases.push_back(MbarrierCase(opcode));
          break;
        case Shape::kCopiesArrive:
          cases.push_back(CopiesArriveCase(opcode));
          break;
        case Shape::kCpAsync:
          AddCopies(opcode, &cases);
          break;
        case Shape::kBulkCopy:
          cases.push_back(BulkCase(opcode));
          break;
        case Shape::kBulkZero:
          cases.push_back(BulkZeroCase(opcode));
          break;
        case Shape::kCluster:
          cases.push_back(about.base == "createpolicy" ? PolicyCase(opcode)
                                                       : ClusterCase(opcode));
          break;
        default:
          break;
      }
    }
  }
  return cases;
}

}  // namespace pos::ptx::testing
