// Memory and instructions of the whole warp in random kernels.
#include <algorithm>
#include <array>
#include <vector>

#include "random_kernel.h"
#include "random_writer.h"

namespace pos::ptx::testing {
namespace {

struct MemoryType {
  const char* name;
  std::uint32_t bytes;
  bool is_float;
};
constexpr std::array<MemoryType, 14> kTypes = {{{"u8", 1, false},
                                                {"s8", 1, false},
                                                {"b8", 1, false},
                                                {"u16", 2, false},
                                                {"s16", 2, false},
                                                {"b16", 2, false},
                                                {"u32", 4, false},
                                                {"s32", 4, false},
                                                {"b32", 4, false},
                                                {"f32", 4, true},
                                                {"u64", 8, false},
                                                {"s64", 8, false},
                                                {"b64", 8, false},
                                                {"f64", 8, true}}};

std::string Number(std::uint32_t n) { return std::to_string(n); }

}  // namespace

// "{…}" of `count` registers, or one of them; those of integers may be wider
// than what is in memory.
std::string Writer::DataList(std::uint32_t bytes, std::uint32_t count,
                             bool load, bool is_float) {
  std::uint32_t width = std::max(2u, bytes);
  if (!is_float && bytes < 8 && OneIn(3)) width *= 2;
  std::vector<std::string> names;
  while (names.size() < count) {
    std::string name = Data(width);
    const bool known =
        std::find(names.begin(), names.end(), name) != names.end();
    if (!load || !known) names.push_back(std::move(name));
  }
  if (count == 1) return names[0];
  std::string list = "{" + names[0];
  for (std::size_t i = 1; i < count; ++i) list += ", " + names[i];
  return list + "}";
}

// ld of what nobody writes, at an index that comes from the data.
void Writer::InputLoad() {
  const MemoryType& type = kTypes[Below(kTypes.size())];
  std::uint32_t count = 1u << Below(3);
  while (count * type.bytes > 16) count /= 2;
  Line("and.b32 %t0, " + Data(4) + ", " + Number(kRandomInBytes / 16 - 1) +
       ";");
  Line("mul.wide.u32 %a0, %t0, 16;");
  Line("add.u64 %a0, %a0, %in;");
  const std::uint32_t last = 16 - count * type.bytes;
  const std::uint32_t offset =
      Below(last / (count * type.bytes) + 1) * (count * type.bytes);
  constexpr std::array<const char*, 4> kHow = {"", ".global", ".global.nc",
                                               ".volatile.global"};
  Line(Guard() + "ld" + kHow[Below(4)] +
       (count == 1 ? "" : ".v" + Number(count)) + "." + type.name + " " +
       DataList(type.bytes, count, true, type.is_float) + ", [%a0+" +
       Number(offset) + "];");
}

// Leaves an address of 16 private bytes in %a1 (shared memory: in %slot).
// Atomics are for global and shared memory.
std::string Writer::PrivateAddress(bool has_shared, bool atomic,
                                   std::string* space) {
  const std::uint32_t kinds = atomic ? 2 : 4;
  const std::uint32_t drawn = Below(kinds + (has_shared ? 1 : 0));
  const std::uint32_t kind = drawn == kinds ? 4 : drawn;
  if (kind == 4) {
    *space = ".shared";
    return "%slot";
  }
  const bool local = kind >= 2;
  const bool generic = kind % 2 == 1;
  const std::uint32_t bytes = local ? kLocalBytes : kOwnBytes;
  Line("and.b32 %t0, " + Data(4) + ", " + Number(bytes - 16) + ";");
  Line("cvt.u64.u32 %a1, %t0;");
  Line(std::string("add.u64 %a1, %a1, ") + (local ? "%loc;" : "%own;"));
  if (local && generic) Line("cvta.local.u64 %a1, %a1;");
  *space = generic ? "" : local ? ".local" : ".global";
  return "%a1";
}

void Writer::PrivateMemory(bool has_shared) {
  std::string space;
  const std::string address = PrivateAddress(has_shared, false, &space);
  const std::uint32_t accesses = 1 + Below(3);
  for (std::uint32_t i = 0; i < accesses; ++i) {
    const MemoryType& type = kTypes[Below(kTypes.size())];
    std::uint32_t count = 1u << Below(3);
    while (count * type.bytes > 16) count /= 2;
    const std::uint32_t size = count * type.bytes;
    const std::string at =
        "[" + address + "+" + Number(Below(16 / size) * size) + "]";
    const bool load = OneIn(2);
    const std::string list = DataList(type.bytes, count, load, type.is_float);
    const std::string opcode = Guard() + (load ? "ld" : "st") + space +
                               (count == 1 ? "" : ".v" + Number(count)) + "." +
                               type.name + " ";
    Line(load ? opcode + list + ", " + at + ";"
              : opcode + at + ", " + list + ";");
  }
}

void Writer::PrivateAtomic(bool has_shared) {
  std::string space;
  const std::string address = PrivateAddress(has_shared, true, &space);
  constexpr std::array<const char*, 26> kOps = {
      "add.u32", "add.s32",  "add.u64",  "add.f32", "add.f64", "min.u32",
      "min.s32", "min.u64",  "min.s64",  "max.u32", "max.s32", "max.u64",
      "max.s64", "and.b32",  "and.b64",  "or.b32",  "or.b64",  "xor.b32",
      "xor.b64", "exch.b32", "exch.b64", "inc.u32", "dec.u32", "cas.b16",
      "cas.b32", "cas.b64"};
  const std::string op = kOps[Below(kOps.size())];
  const std::uint32_t bytes = op.ends_with("16")   ? 2
                              : op.ends_with("32") ? 4
                                                   : 8;
  const std::string at =
      "[" + address + "+" + Number(Below(16 / bytes) * bytes) + "]";
  const bool cas = op.starts_with("cas");
  if (!cas && !op.starts_with("exch") && OneIn(3)) {
    Line(Guard() + "red" + space + "." + op + " " + at + ", " + Data(bytes) +
         ";");
    return;
  }
  Line(Guard() + "atom" + space + "." + op + " " + Data(bytes) + ", " + at +
       ", " + Data(bytes) + (cas ? ", " + Data(bytes) : "") + ";");
}

// Each operation has words of its own.
void Writer::CommonReduction() {
  constexpr std::array<const char*, 17> kOps = {
      "add.u32", "add.s32", "add.u64", "min.u32", "min.s32", "min.u64",
      "min.s64", "max.u32", "max.s32", "max.u64", "max.s64", "and.b32",
      "and.b64", "or.b32",  "or.b64",  "xor.b32", "xor.b64"};
  const std::uint32_t kind = Below(kOps.size());
  const std::string op = kOps[kind];
  const std::uint32_t bytes = op.ends_with("32") ? 4 : 8;
  Line("and.b32 %t0, " + Data(4) + ", 3;");
  Line("mul.wide.u32 %a0, %t0, 8;");
  Line("add.u64 %a0, %a0, %acc;");
  Line(Guard() + "red.global." + op + " [%a0+" + Number(32 * kind) + "], " +
       Data(bytes) + ";");
}

void Writer::Shuffle(const std::string& mask) {
  constexpr std::array<const char*, 4> kModes = {"up", "down", "bfly", "idx"};
  const std::uint32_t mode = Below(4);
  const std::uint32_t segment = (32 - (4u << Below(4))) & 31;
  const std::uint32_t clamp = mode == 0 ? 0 : OneIn(4) ? Below(32) : 31;
  Line("and.b32 %t2, " + (OneIn(2) ? Data(4) : Number(Below(32))) + ", 31;");
  Line(std::string("shfl.sync.") + kModes[mode] + ".b32 %t0|%q0, " + Data(4) +
       ", %t2, " + Number(segment << 8 | clamp) + ", " + mask + ";");
  if (mode == 0) Line("sub.u32 %t1, %lane, %t2;");
  if (mode == 1) Line("add.u32 %t1, %lane, %t2;");
  if (mode == 2) Line("xor.b32 %t1, %lane, %t2;");
  if (mode == 3) {
    Line("and.b32 %t1, %t2, " + Number(~segment & 31) + ";");
    Line("and.b32 %t3, %lane, " + Number(segment) + ";");
    Line("or.b32 %t1, %t1, %t3;");
  }
  // A lane that does not take part gives nothing.
  Line("selp.b32 %t1, %t1, %lane, %q0;");
  Line("shr.u32 %t1, " + mask + ", %t1;");
  Line("and.b32 %t1, %t1, 1;");
  Line("setp.ne.u32 %q1, %t1, 0;");
  Line("selp.b32 " + Data(4) + ", %t0, 0, %q1;");
  if (OneIn(2)) Line("mov.pred " + Data(0) + ", %q0;");
}

std::string Writer::CollectiveText(std::uint32_t kind,
                                   const std::string& mask) {
  constexpr std::array<const char*, 9> kRedux = {
      "add.u32", "add.s32", "min.u32", "min.s32", "max.u32",
      "max.s32", "and.b32", "or.b32",  "xor.b32"};
  constexpr std::array<const char*, 3> kVotes = {"all", "any", "uni"};
  const std::string bang = OneIn(4) ? "!" : "";
  switch (kind) {
    case 0:
      return std::string("vote.sync.") + kVotes[Below(3)] + ".pred " + Data(0) +
             ", " + bang + Data(0) + ", " + mask + ";";
    case 1:
      return "vote.sync.ballot.b32 " + Data(4) + ", " + bang + Data(0) + ", " +
             mask + ";";
    case 2: {
      const bool wide = OneIn(2);
      return std::string("match.any.sync.b") + (wide ? "64 " : "32 ") +
             Data(4) + ", " + Data(wide ? 8 : 4) + ", " + mask + ";";
    }
    case 3: {
      const bool wide = OneIn(2);
      return std::string("match.all.sync.b") + (wide ? "64 " : "32 ") +
             Data(4) + "|" + Data(0) + ", " + Data(wide ? 8 : 4) + ", " + mask +
             ";";
    }
    case 4:
      return "elect.sync " + Data(4) + "|" + Data(0) + ", " + mask + ";";
    case 5:
      return "bar.warp.sync " + mask + ";";
    default:
      return std::string("redux.sync.") + kRedux[Below(kRedux.size())] + " " +
             Data(4) + ", " + Data(4) + ", " + mask + ";";
  }
}

void Writer::Collective(const std::string& mask) {
  std::string members = mask;
  std::string guard;
  const std::uint32_t kind = Below(11);
  if (kind < 8 && OneIn(4)) {  // those where a predicate holds
    const std::string p = Data(0);
    Line("vote.sync.ballot.b32 %t7, " + p + ", " + mask + ";");
    members = "%t7";
    guard = "@" + p + " ";
  }
  if (kind >= 8) return Shuffle(mask);
  Line(guard + CollectiveText(kind, members));
}

// The same instruction on both sides of a predicate.
void Writer::FromTwoPlaces(std::uint32_t kind, const std::string& p,
                           const std::string& mask,
                           const std::string& before_second) {
  const std::string other = NewLabel("split");
  const std::string end = NewLabel("joined");
  const std::string first = CollectiveText(kind, mask);
  // With other registers, where its modifiers come out the same.
  std::string second = CollectiveText(kind, mask);
  const std::string opcode = first.substr(0, first.find(' ') + 1);
  if (!second.starts_with(opcode)) second = first;
  Line("@" + p + " bra " + other + ";");
  Line(first);
  Line("bra " + end + ";");
  Line(other + ":");
  text_ += before_second;
  Line(second);
  Line(end + ":");
}

void Writer::SplitCollective(const std::string& mask) {
  const std::uint32_t kind = Below(7);
  const std::string p = Data(0);
  if (OneIn(2)) return FromTwoPlaces(kind, p, mask, "");
  // While those on one side wait, the others have some among themselves.
  Line("mov.pred %q3, " + p + ";");
  Line("vote.sync.ballot.b32 %t6, %q3, " + mask + ";");
  std::string rest;
  rest.swap(text_);
  FromTwoPlaces(kind, Data(0), "%t6", "");
  rest.swap(text_);
  FromTwoPlaces(kind, "%q3", mask, rest);
}

}  // namespace pos::ptx::testing
