// Control flow of random kernels: ifs, loops, switches, jumps, calls.
#include <string>
#include <vector>

#include "random_kernel.h"
#include "random_writer.h"

namespace pos::ptx::testing {
namespace {

constexpr std::uint32_t kFunctions = 3;
constexpr std::uint32_t kDeepest = 3;   // regions in regions
constexpr std::uint32_t kSlots = 2048;  // bytes of the threads' .shared
constexpr std::uint32_t kOwnAt = 384;   // %own in the thread's results
static_assert(kMaxRandomThreads * kSharedBytes <= kSlots);
static_assert(kOwnAt + kOwnBytes <= kRandomOutBytes);

std::string Number(std::uint32_t n) { return std::to_string(n); }

// Statements that lanes enter together and leave at `end`.
struct Region {
  std::string end;
  std::string mask;      // who is here; empty: not known
  bool broken = false;   // some may have jumped to `end`, or beyond
  bool uniform = false;  // all threads of the block come here
  bool walled = false;   // no jumps beyond this region's end
};

class KernelMaker {
 public:
  explicit KernelMaker(std::uint64_t seed) : w_(seed) {}
  RandomKernel Make();

 private:
  [[nodiscard]] Region& here() { return regions_.back(); }
  [[nodiscard]] std::string Mask() { return here().broken ? "" : here().mask; }
  [[nodiscard]] bool Uniform() { return here().uniform && !here().broken; }
  std::string NewMask() { return "%m" + Number(masks_++); }

  void Entry();
  void Function(std::uint32_t number);
  void Body(Region region, std::uint32_t statements);
  void Statement();
  void Simple();
  void ShortLived();
  void If();
  void UniformIf();
  void Loop();
  void LoopHead(const std::string& counter, const std::string& mask,
                const std::string& end);
  void UniformLoop();
  void Switch();
  void Jump();
  void Exchange();
  void BlockVote();
  void Call(const std::string& depth, std::uint32_t below);
  void Recurse();
  void PassArguments(const std::string& mask, const std::string& depth,
                     const std::string& call);
  void EarlyExit();
  void StoreResults();

  Writer w_;
  std::vector<Region> regions_;
  std::uint32_t masks_ = 0;
  std::uint32_t counters_ = 0;
  std::uint32_t short_lived_ = 0;
  std::uint32_t budget_ = 0;    // statements left in this function
  std::uint32_t function_ = 0;  // kFunctions: the kernel
  std::uint32_t calls_left_ = 0;
};

void KernelMaker::Body(Region region, std::uint32_t statements) {
  const std::string end = region.end;
  regions_.push_back(std::move(region));
  for (std::uint32_t i = 0; i < statements && budget_ > 0; ++i) Statement();
  regions_.pop_back();
  w_.Line(end + ":");
}

void KernelMaker::Simple() {
  const bool kernel = function_ == kFunctions;
  switch (w_.Below(10)) {
    case 0:
      return w_.CarryChain();
    case 1:
      return w_.PackOrUnpack();
    case 2:
      return w_.InputLoad();
    case 3:
      return w_.PrivateMemory(kernel);
    case 4:
      return w_.PrivateAtomic(kernel);
    case 5:
      return w_.CommonReduction();
    default:
      for (std::uint32_t n = 1 + w_.Below(3); n > 0; --n) w_.Arithmetic();
  }
}

void KernelMaker::Statement() {
  --budget_;
  const bool deep = regions_.size() > kDeepest;
  const std::uint32_t kind = w_.Below(26);
  if (kind < 3 && !deep) return If();
  if (kind < 5 && !deep) return Loop();
  if (kind == 5 && !deep) return Switch();
  if (kind == 6 && regions_.size() > 1) return Jump();
  if (kind == 7 && calls_left_ > 0) {
    --calls_left_;
    return Call(function_ == kFunctions ? "3" : "1", function_);
  }
  if (kind < 10 && Uniform()) return Exchange();
  if (kind == 10 && Uniform()) return BlockVote();
  if (kind == 11 && Uniform() && !deep) return UniformLoop();
  if (kind == 12 && Uniform() && !deep) return UniformIf();
  if (kind < 17 && !Mask().empty()) return w_.Collective(Mask());
  if (kind == 17 && !Mask().empty()) return w_.SplitCollective(Mask());
  if (kind < 21) return ShortLived();
  Simple();
}

// Registers that live across a few statements, in which others are born.
void KernelMaker::ShortLived() {
  if (short_lived_ == kShortLived) return Simple();
  const std::string n = Number(short_lived_++);
  const std::uint32_t kind = w_.Below(4);
  const std::uint32_t bytes = kind == 0 ? 0 : 1u << kind;
  const std::string type = kind == 0 ? "pred" : "b" + Number(8 * bytes);
  const std::string reg = std::string("%") + "phrd"[kind] + "x" + n;
  if (kind == 0) {
    w_.Line("setp.lt.s32 " + reg + ", " + w_.Data(4) + ", " + w_.Data(4) + ";");
  } else {
    w_.Line("xor." + type + " " + reg + ", " + w_.Data(bytes) + ", " +
            w_.Data(bytes) + ";");
  }
  for (std::uint32_t i = 1 + w_.Below(3); i > 0 && budget_ > 0; --i) {
    Statement();
  }
  const std::string d = w_.Data(bytes);
  w_.Line("xor." + type + " " + d + ", " + d + ", " + reg + ";");
}

void KernelMaker::If() {
  const std::string p = w_.Data(0);
  const std::string other = w_.NewLabel("else");
  const std::string end = w_.NewLabel("endif");
  Region yes{w_.NewLabel("then"), "", false, false, false};
  Region no{end, "", false, false, false};
  const std::string mask = Mask();
  if (!mask.empty()) {
    yes.mask = NewMask();
    no.mask = NewMask();
    w_.Line("vote.sync.ballot.b32 " + yes.mask + ", " + p + ", " + mask + ";");
    w_.Line("xor.b32 " + no.mask + ", " + yes.mask + ", " + mask + ";");
  }
  const bool has_else = w_.OneIn(2);
  w_.Line("@!" + p + " bra " + (has_else ? other : end) + ";");
  Body(yes, 1 + w_.Below(4));
  if (!has_else) return w_.Line(end + ":");
  w_.Line("bra " + end + ";");
  w_.Line(other + ":");
  Body(no, 1 + w_.Below(3));
}

// By the number of the block: all its threads go the same way.
void KernelMaker::UniformIf() {
  const std::string end = w_.NewLabel("uniform");
  w_.Line("mov.u32 %t0, %ctaid.x;");
  w_.Line("and.b32 %t0, %t0, 1;");
  w_.Line("setp.eq.u32 %q0, %t0, " + Number(w_.Below(2)) + ";");
  w_.Line("@%q0 bra " + end + ";");
  Body({end, here().mask, false, true, true}, 1 + w_.Below(3));
}

// Leaves the loop when the counter is zero; keeps the mask.
void KernelMaker::LoopHead(const std::string& counter, const std::string& mask,
                           const std::string& end) {
  w_.Line("setp.ne.u32 %q0, " + counter + ", 0;");
  if (!mask.empty()) {
    w_.Line("vote.sync.ballot.b32 " + mask + ", %q0, " + mask + ";");
  }
  w_.Line("@!%q0 bra " + end + ";");
}

// A number of rounds that each lane has from its data; tested at the top or at
// the bottom.
void KernelMaker::Loop() {
  const std::string counter = "%c" + Number(counters_++);
  const std::string head = w_.NewLabel("loop");
  const std::string end = w_.NewLabel("endloop");
  const bool at_top = w_.OneIn(2);
  // With a mask, lanes must come back to the head: no jumps out.
  std::string mask;
  if (!Mask().empty() && !w_.OneIn(3)) {
    mask = NewMask();
    w_.Line("mov.b32 " + mask + ", " + Mask() + ";");
  }
  w_.Line("and.b32 " + counter + ", " + w_.Data(4) + ", 3;");
  if (!at_top) w_.Line("add.u32 " + counter + ", " + counter + ", 1;");
  w_.Line(head + ":");
  if (at_top) LoopHead(counter, mask, end);
  regions_.push_back({end, "", false, false, !mask.empty()});
  Body({w_.NewLabel("latch"), mask, false, false, !mask.empty()},
       1 + w_.Below(4));
  regions_.pop_back();
  w_.Line("sub.u32 " + counter + ", " + counter + ", 1;");
  if (!at_top) LoopHead(counter, mask, end);
  w_.Line("bra " + head + ";");
  w_.Line(end + ":");
}

void KernelMaker::UniformLoop() {
  const std::string counter = "%c" + Number(counters_++);
  const std::string head = w_.NewLabel("rounds");
  w_.Line("mov.u32 " + counter + ", " + Number(2 + w_.Below(2)) + ";");
  w_.Line(head + ":");
  Body({w_.NewLabel("round"), here().mask, false, true, true}, 1 + w_.Below(4));
  w_.Line("sub.u32 " + counter + ", " + counter + ", 1;");
  w_.Line("setp.ne.u32 %q0, " + counter + ", 0;");
  w_.Line("@%q0 bra " + head + ";");
}

// Cases that end, and cases that go on with the next one: lanes of two masks
// are in it then.
void KernelMaker::Switch() {
  const std::string table = w_.NewLabel("table");
  const std::string end = w_.NewLabel("endswitch");
  const std::uint32_t cases = 2 + w_.Below(3);
  std::vector<std::string> labels;
  for (std::uint32_t i = 0; i < cases; ++i) {
    labels.push_back(w_.NewLabel("case"));
  }
  w_.Line("and.b32 %t0, " + w_.Data(4) + ", 3;");
  std::string mask;
  if (!Mask().empty()) {
    mask = NewMask();
    w_.Line("match.any.sync.b32 " + mask + ", %t0, " + Mask() + ";");
  }
  std::string targets = labels[0];
  for (std::uint32_t i = 1; i < 4; ++i) {
    targets += ", " + labels[w_.OneIn(4) ? 0 : i % cases];
  }
  w_.Line(table + ": .branchtargets " + targets + ";");
  w_.Line("brx.idx %t0, " + table + ";");
  for (const std::string& label : labels) {
    w_.Line(label + ":");
    // Whoever goes on with the next case must be complete there: walled.
    Body({w_.NewLabel("endcase"), mask, false, false, true}, 1 + w_.Below(2));
    if (!w_.OneIn(3)) w_.Line("bra " + end + ";");
  }
  w_.Line(end + ":");
}

// To the end of a region around here.
void KernelMaker::Jump() {
  std::size_t target = regions_.size() - 1;
  while (target > 1 && !regions_[target].walled && w_.OneIn(2)) --target;
  w_.Line("@" + w_.Data(0) + " bra " + regions_[target].end + ";");
  for (std::size_t i = target; i < regions_.size(); ++i) {
    regions_[i].broken = true;
  }
}

// Every thread shows 16 bytes to the others, who look at some of them.
void KernelMaker::Exchange() {
  w_.Line("st.shared.v2.b32 [%slot+" + Number(8 * w_.Below(2)) + "], {" +
          w_.Data(4) + ", " + w_.Data(4) + "};");
  w_.Line("bar.sync 0;");
  for (std::uint32_t n = 1 + w_.Below(2); n > 0; --n) {
    w_.Line("mov.u32 %t1, %ntid.x;");
    w_.Line("rem.u32 %t0, " + w_.Data(4) + ", %t1;");
    w_.Line("shl.b32 %t0, %t0, 4;");
    w_.Line("mov.u32 %t1, slots;");
    w_.Line("add.u32 %t0, %t0, %t1;");
    if (w_.OneIn(2)) {
      w_.Line(w_.Guard() + "ld.shared.u64 " + w_.Data(8) + ", [%t0+8];");
    } else {  // by its generic address
      w_.Line("cvt.u64.u32 %a0, %t0;");
      w_.Line("cvta.shared.u64 %a0, %a0;");
      w_.Line(w_.Guard() + "ld.u32 " + w_.Data(4) + ", [%a0+4];");
    }
  }
  w_.Line("bar.sync " + Number(w_.Below(3)) + ";");
}

void KernelMaker::BlockVote() {
  switch (w_.Below(3)) {
    case 0:
      return w_.Line("bar.red.popc.u32 " + w_.Data(4) + ", 1, " + w_.Data(0) +
                     ";");
    case 1:
      return w_.Line("bar.red.and.pred " + w_.Data(0) + ", 0, !" + w_.Data(0) +
                     ";");
    default:
      return w_.Line("barrier.cta.red.or.aligned.pred " + w_.Data(0) + ", 2, " +
                     w_.Data(0) + ";");
  }
}

void KernelMaker::PassArguments(const std::string& mask,
                                const std::string& depth,
                                const std::string& call) {
  w_.Line("{");
  for (const char* name : {"pr", "pd", "po", "pi", "pc"}) {
    w_.Line(std::string(".param .b64 ") + name + ";");
  }
  for (const char* name : {"pw", "pm", "pn"}) {
    w_.Line(std::string(".param .b32 ") + name + ";");
  }
  w_.Line("st.param.b64 [pd], " + w_.Data(8) + ";");
  w_.Line("st.param.b64 [po], %own;\nst.param.b64 [pi], %in;");
  w_.Line("st.param.b64 [pc], %acc;");
  w_.Line("st.param.b32 [pw], " + w_.Data(4) + ";");
  w_.Line("st.param.b32 [pm], " + mask + ";");
  w_.Line("st.param.b32 [pn], " + depth + ";");
  w_.Line(call);
  w_.Line("ld.param.b64 " + w_.Data(8) + ", [pr];\n}");
}

// A function with a number below `below`, by its name or by its address.
void KernelMaker::Call(const std::string& depth, std::uint32_t below) {
  if (below == 0) return Simple();
  std::string mask = Mask();
  if (mask.empty()) {
    w_.Line("mov.u32 %t4, %lanemask_eq;");
    mask = "%t4";
  }
  w_.Line("and.b32 %t5, " + w_.Data(4) + ", " + depth + ";");
  const std::string arguments = ", (pd, po, pi, pc, pw, pm, pn)";
  const std::string one = "f" + Number(w_.Below(below));
  if (w_.OneIn(2)) {
    return PassArguments(mask, "%t5", "call (pr), " + one + arguments + ";");
  }
  const std::string p = w_.Data(0);
  const std::string prototype = w_.NewLabel("prototype");
  w_.Line("mov.u64 %a2, " + one + ";");
  w_.Line("mov.u64 %a3, f" + Number(w_.Below(below)) + ";");
  w_.Line("selp.b64 %a2, %a2, %a3, " + p + ";");
  // Those who call the same function: by its address.
  w_.Line("match.any.sync.b64 %t6, %a2, " + mask + ";");
  PassArguments("%t6", "%t5",
                prototype +
                    ": .callprototype (.param .b64 _) _ (.param .b64 _, .param "
                    ".b64 _, .param .b64 _, .param .b64 _, .param .b32 _, "
                    ".param .b32 _, .param .b32 _);\ncall (pr), %a2" +
                    arguments + ", " + prototype + ";");
}

// While %c63, the depth that is left, is not zero.
void KernelMaker::Recurse() {
  const std::string end = w_.NewLabel("bottom");
  std::string mask = Mask();
  w_.Line("setp.ne.u32 %q2, %c63, 0;");
  if (mask.empty()) {
    w_.Line("mov.u32 %t4, %lanemask_eq;");
  } else {
    w_.Line("vote.sync.ballot.b32 %t4, %q2, " + mask + ";");
  }
  w_.Line("@!%q2 bra " + end + ";");
  w_.Line("sub.u32 %t5, %c63, 1;");
  PassArguments(
      "%t4", "%t5",
      "call (pr), f" + Number(function_) + ", (pd, po, pi, pc, pw, pm, pn);");
  w_.Line(end + ":");
}

void KernelMaker::Function(std::uint32_t number) {
  function_ = number;
  masks_ = 1;
  counters_ = 0;
  short_lived_ = 0;
  calls_left_ = number == 0 ? 0 : 1;
  budget_ = 10;
  w_.Line(".func (.param .b64 r) f" + Number(number) +
          "(.param .b64 x, .param .b64 o, .param .b64 i, .param .b64 c, "
          ".param .b32 w, .param .b32 m, .param .b32 n)\n{");
  w_.Declarations();
  w_.Line("ld.param.b64 %d0, [x];\nld.param.b64 %own, [o];");
  w_.Line("ld.param.b64 %in, [i];\nld.param.b64 %acc, [c];");
  w_.Line("ld.param.b32 %r0, [w];\nld.param.b32 %m0, [m];");
  w_.Line("ld.param.b32 %c63, [n];\nmov.u32 %lane, %laneid;");
  w_.Line("mov.u64 %loc, loc;");
  for (std::uint32_t i = 0; i < kLocalBytes; i += 8) {
    w_.Line("st.local.b64 [%loc+" + Number(i) + "], %d0;");
  }
  w_.Line("mov.b64 {%r1, %r2}, %d0;");
  for (std::uint32_t i = 3; i < kDataRegisters32; ++i) {
    w_.Line("add.u32 %r" + Number(i) + ", %r" + Number(i - 1) + ", %r" +
            Number(i - 2) + ";");
  }
  for (std::uint32_t i = 1; i < kDataRegisters64; ++i) {
    w_.Line("mov.b64 %d" + Number(i) + ", {%r" + Number(i) + ", %r" +
            Number(i + 1) + "};");
  }
  for (std::uint32_t i = 0; i < kDataRegisters16; ++i) {
    const std::string r = "%r" + Number(i);
    w_.Line("cvt.u16.u32 %h" + Number(i) + ", " + r + ";");
    w_.Line("setp.lt.s32 %p" + Number(i) + ", " + r + ", 0;");
  }
  const std::string end = w_.NewLabel("end");
  Body({end, "%m0", false, false, true}, 8);
  // Nobody is behind the end of the body.
  regions_.push_back({end, "%m0", false, false, true});
  Recurse();
  regions_.pop_back();
  w_.Line("xor.b64 %d1, %d1, " + w_.Data(8) + ";");
  w_.Line("st.param.b64 [r], %d1;\nret;\n}");
}

// Some threads end before the others; no barrier comes after.
void KernelMaker::EarlyExit() {
  const std::string p = w_.Data(0);
  w_.Line("not.pred %q3, " + p + ";");
  w_.Line("vote.sync.ballot.b32 %m126, %q3, %m0;");
  w_.Line("@" + p + (w_.OneIn(2) ? " exit;" : " ret;"));
  budget_ = 6;
  Body({w_.NewLabel("rest"), "%m126", false, false, true}, 4);
}

void KernelMaker::StoreResults() {
  std::uint32_t at = 0;
  const auto store = [&](const std::string& type, const std::string& reg) {
    w_.Line("st.global." + type + " [%a7+" + Number(at) + "], " + reg + ";");
    at += 8;
  };
  for (std::uint32_t i = 0; i < kDataRegisters64; ++i) {
    store("u64", "%d" + Number(i));
  }
  for (std::uint32_t i = 0; i < kDataRegisters32; ++i) {
    store("u32", "%r" + Number(i));
  }
  for (std::uint32_t i = 0; i < kDataRegisters16; ++i) {
    store("u16", "%h" + Number(i));
  }
  for (std::uint32_t i = 0; i < kDataPredicates; ++i) {
    w_.Line("selp.u32 %t0, 1, 0, %p" + Number(i) + ";");
    store("u32", "%t0");
  }
}

void KernelMaker::Entry() {
  function_ = kFunctions;
  masks_ = 1;
  counters_ = 0;
  short_lived_ = 0;
  calls_left_ = 2;
  budget_ = 30 + w_.Below(40);
  w_.Line(
      ".visible .entry k(.param .u64 k_in, .param .u64 k_out, "
      ".param .u64 k_acc)\n{");
  w_.Declarations();
  w_.Line(".shared .align 16 .b8 slots[" + Number(kSlots) + "];");
  w_.Line("ld.param.u64 %in, [k_in];\nld.param.u64 %own, [k_out];");
  w_.Line("ld.param.u64 %acc, [k_acc];\nmov.u32 %lane, %laneid;");
  w_.Line("mov.u64 %loc, loc;\nmov.u32 %t0, %ctaid.x;\nmov.u32 %t1, %ntid.x;");
  w_.Line("mov.u32 %t2, %tid.x;\nmad.lo.u32 %t0, %t0, %t1, %t2;");
  w_.Line("mul.wide.u32 %a0, %t0, " + Number(kRandomOutBytes) + ";");
  w_.Line("add.u64 %a7, %own, %a0;\nadd.u64 %own, %a7, " + Number(kOwnAt) +
          ";");
  w_.Line("shl.b32 %slot, %t2, 4;\nmov.u32 %t3, slots;");
  w_.Line("add.u32 %slot, %slot, %t3;\nand.b32 %t3, %t2, -32;");
  w_.Line("sub.u32 %t3, %t1, %t3;\nmin.u32 %t3, %t3, 32;");
  w_.Line("bmsk.clamp.b32 %m0, 0, %t3;\nmul.lo.u32 %t4, %t0, 5;");
  for (std::uint32_t i = 0; i < 24; ++i) {
    w_.Line("and.b32 %t5, %t4, 255;\nmul.wide.u32 %a0, %t5, 8;");
    w_.Line("add.u64 %a0, %a0, %in;\nadd.u32 %t4, %t4, 7;");
    if (i < 8) w_.Line("ld.global.u64 %d" + Number(i) + ", [%a0];");
    if (i >= 8 && i < 18) {
      w_.Line("ld.global.u32 %r" + Number(i - 8) + ", [%a0];");
    }
    if (i >= 18) {
      const std::string n = Number(i - 18);
      w_.Line("ld.global.u16 %h" + n + ", [%a0];");
      w_.Line("ld.global.s32 %t6, [%a0+4];\nsetp.lt.s32 %p" + n + ", %t6, 0;");
    }
  }
  for (std::uint32_t i = 0; i < kLocalBytes; i += 8) {
    w_.Line("st.local.b64 [%loc+" + Number(i) + "], %d" + Number(i / 8 % 8) +
            ";");
  }
  w_.Line("st.shared.b64 [%slot], %d0;\nst.shared.b64 [%slot+8], %d1;");
  Body({w_.NewLabel("end"), "%m0", false, true, true}, 100);
  StoreResults();
  if (w_.OneIn(3)) {
    EarlyExit();
    StoreResults();
  }
  w_.Line("ret;\n}");
}

RandomKernel KernelMaker::Make() {
  RandomKernel kernel;
  constexpr std::uint32_t kThreads[] = {32, 64, 33, 20, 71, 128, 96, 1};
  kernel.threads = kThreads[w_.Below(8)];
  kernel.blocks = 1 + w_.Below(3);
  w_.Line(".version 8.8\n.target sm_90\n.address_size 64");
  for (std::uint32_t i = 0; i < kFunctions; ++i) Function(i);
  Entry();
  kernel.text = std::move(w_.text());
  return kernel;
}

}  // namespace

RandomKernel MakeRandomKernel(std::uint64_t seed) {
  return KernelMaker(seed).Make();
}

}  // namespace pos::ptx::testing
