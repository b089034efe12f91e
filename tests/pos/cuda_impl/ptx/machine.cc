// Threads and blocks of the second machine, and what threads wait for.
#include "machine.h"

#include <algorithm>
#include <optional>
#include <string>

namespace pos::ptx::testing {
namespace {

constexpr std::uint32_t kLocalBytes = 1u << 15;  // of one thread

std::uint32_t AlignedUp(std::uint64_t at, std::uint64_t alignment) {
  const std::uint64_t by = std::max<std::uint64_t>(alignment, 1);
  return static_cast<std::uint32_t>((at + by - 1) / by * by);
}

bool Bit(std::uint64_t word, std::uint64_t at) { return (word >> at & 1) != 0; }

// shfl: the lane that `lane` reads from, by the ISA's description.
std::int32_t ShuffleSource(const OpcodeInfo& op, std::int32_t lane,
                           std::uint64_t b, std::uint64_t c, bool* inside) {
  const auto by = static_cast<std::int32_t>(b & 31);
  const auto clamp = static_cast<std::int32_t>(c & 31);
  const auto segment = static_cast<std::int32_t>(c >> 8 & 31);
  const std::int32_t highest = (lane & segment) | (clamp & ~segment);
  std::int32_t from = (lane & segment) | (by & ~segment);
  if (op.Has("up")) from = lane - by;
  if (op.Has("down")) from = lane + by;
  if (op.Has("bfly")) from = lane ^ by;
  *inside = op.Has("up") ? from >= highest : from <= highest;
  return *inside ? from : lane;
}

std::uint64_t Reduce(const OpcodeInfo& op, std::uint64_t a, std::uint64_t b) {
  if (op.Has("add")) return (a + b) & 0xffffffff;
  if (op.Has("and")) return a & b;
  if (op.Has("or")) return a | b;
  if (op.Has("xor")) return a ^ b;
  const Type type = op.key.type[0];
  const bool less = IntegerOf(a, type) < IntegerOf(b, type);
  return less == op.Has("min") ? a : b;
}

// Result and predicate of one member of a group.
struct Outcome {
  std::uint64_t value = 0;
  std::optional<bool> predicate;
};

Outcome ShuffleOutcome(const Thread& t, std::span<Thread* const> group) {
  bool inside = false;
  const std::int32_t from =
      ShuffleSource(*t.opcode, static_cast<std::int32_t>(t.lane()),
                    t.sources[1], t.sources[2], &inside);
  Outcome outcome{0xdeadbeef, inside};  // what a lane outside gives is open
  for (const Thread* other : group) {
    if (static_cast<std::int32_t>(other->lane()) == from) {
      outcome.value = other->sources[0];
    }
  }
  return outcome;
}

Outcome VoteOutcome(const OpcodeInfo& op, std::span<Thread* const> group) {
  std::uint32_t ballot = 0;
  std::size_t yes = 0;
  for (const Thread* other : group) {
    if (other->sources[0] == 0) continue;
    ballot |= 1u << other->lane();
    ++yes;
  }
  if (op.Has("ballot")) return {ballot, {}};
  const bool all = yes == group.size();
  const bool holds = op.Has("all")   ? all
                     : op.Has("any") ? yes != 0
                                     : all || yes == 0;
  return {holds ? 1u : 0u, {}};
}

Outcome MatchOutcome(const Thread& t, std::span<Thread* const> group) {
  std::uint32_t same = 0;
  std::uint32_t members = 0;
  for (const Thread* other : group) {
    members |= 1u << other->lane();
    if (other->sources[0] == t.sources[0]) same |= 1u << other->lane();
  }
  if (!t.opcode->Has("all")) return {same, {}};
  return {same == members ? members : 0, same == members};
}

Outcome ReduxOutcome(const OpcodeInfo& op, std::span<Thread* const> group) {
  std::uint64_t value = group.front()->sources[0];
  for (const Thread* other : group.subspan(1)) {
    value = Reduce(op, value, other->sources[0]);
  }
  return {value, {}};
}

Outcome OutcomeOf(const Thread& t, std::span<Thread* const> group) {
  const OpcodeInfo& op = *t.opcode;
  if (op.base == "shfl") return ShuffleOutcome(t, group);
  if (op.base == "vote") return VoteOutcome(op, group);
  if (op.base == "match") return MatchOutcome(t, group);
  if (op.base == "redux") return ReduxOutcome(op, group);
  if (op.base == "elect") {
    const std::uint32_t leader = group.front()->lane();
    return {leader, t.lane() == leader};
  }
  return {};
}

}  // namespace

Machine::Machine(const ast::Unit& unit, MemoryView* memory)
    : unit_(unit), memory_(memory) {
  for (const std::string& opcode : unit.opcodes) {
    opcodes_.push_back(ParseOpcode(opcode));
  }
  std::uint32_t at = 0;
  for (std::uint32_t i = 0; i < unit.shared.size(); ++i) {
    at = AlignedUp(at, unit.shared[i].alignment);
    shared_at_[i] = at;
    at += static_cast<std::uint32_t>(unit.shared[i].bytes);
  }
  shared_.Resize(at);
}

Status Machine::Run(std::string_view kernel, const Launch& launch) {
  const auto found = unit_.entry_index.find(std::string(kernel));
  if (found == unit_.entry_index.end()) return NoSuch("no such kernel");
  const ast::Function& function =
      unit_.functions[unit_.entry_functions[found->second]];
  launch_ = launch;
  steps_ = 0;
  for (block_ = 0; block_ < launch.blocks; ++block_) {
    POS_RETURN_IF_ERROR(RunBlock(function));
  }
  return OkStatus();
}

Status Machine::RunBlock(const ast::Function& kernel) {
  shared_.written.assign(shared_.value.size(), false);
  threads_.assign(launch_.threads, Thread());
  for (std::uint32_t i = 0; i < threads_.size(); ++i) {
    threads_[i].number = i;
    threads_[i].local.Resize(kLocalBytes);
    threads_[i].calls.push_back(Enter(kernel, 0));
  }
  for (;;) {
    for (Thread& thread : threads_) POS_RETURN_IF_ERROR(RunThread(&thread));
    const bool over = std::all_of(
        threads_.begin(), threads_.end(),
        [](const Thread& t) { return t.state == ThreadState::kDone; });
    if (over) return OkStatus();
    POS_ASSIGN_OR_RETURN(const bool some, CompleteCollectives());
    if (!some && !CompleteBarriers()) {
      return Invalid("threads wait for what cannot come");
    }
  }
}

Activation Machine::Enter(const ast::Function& function,
                          std::uint32_t local_begin) {
  Activation call;
  call.function = &function;
  call.registers.resize(function.register_count);
  call.written.resize(function.register_count);
  call.local_begin = local_begin;
  std::uint32_t local = local_begin;
  std::uint32_t params = 0;
  const auto place = [](std::uint32_t* at, const ast::Storage& storage) {
    const std::uint32_t begin = AlignedUp(*at, storage.alignment);
    *at = begin + static_cast<std::uint32_t>(storage.bytes);
    return begin;
  };
  for (const ast::Storage& variable : function.variables) {
    call.variable_at.push_back(
        place(variable.space == Space::kParam ? &params : &local, variable));
  }
  for (const ast::Storage& formal : function.returns) {
    call.return_at.push_back(place(&params, formal));
  }
  for (const ast::Storage& formal : function.params) {
    call.param_at.push_back(place(&params, formal));
  }
  call.local_end = AlignedUp(local, 16);
  call.params.Resize(params);
  return call;
}

Status Machine::RunThread(Thread* thread) {
  while (thread->state == ThreadState::kReady) {
    if (++steps_ > launch_.most_steps) return Aborted("too many steps");
    POS_RETURN_IF_ERROR(Step(thread));
  }
  return OkStatus();
}

Status Machine::Step(Thread* thread) {
  Activation& call = thread->calls.back();
  if (call.next >= call.function->instructions.size()) {
    return call.function->entry ? Return(thread)
                                : Invalid("ran off a function");
  }
  const ast::Instruction& in = call.function->instructions[call.next++];
  const OpcodeInfo& op = opcodes_[in.opcode];
  if (in.guard != ast::kNone && !call.written[in.guard]) {
    return Invalid("a guard that nothing wrote");
  }
  if (in.guard != ast::kNone &&
      (call.registers[in.guard] != 0) == in.guard_negated) {
    return OkStatus();
  }
  if (op.row == OpcodeInfo::kNoRow) return Invalid("no such instruction");
  switch (GetOpcodeRow(op.row).shape) {
    case Shape::kAlu:
    case Shape::kSetp:
    case Shape::kPrmt:
      return Compute(thread, in, op);
    case Shape::kMov:
      return Move(thread, in, op);
    case Shape::kCvt:
    case Shape::kCvta:
      return Convert(thread, in, op);
    case Shape::kLoad:
    case Shape::kStore:
    case Shape::kLoadParam:
    case Shape::kStoreParam:
      return Access(thread, in, op);
    case Shape::kAtom:
    case Shape::kRed:
      return Atomic(thread, in, op);
    case Shape::kFence:
    case Shape::kNothing:
    case Shape::kNanosleep:
      return OkStatus();
    case Shape::kBarrier:
    case Shape::kCollective:
      return Wait(thread, in, op);
    default:
      return Flow(thread, in, op);
  }
}

// bar.sync and bar.red of all threads of the block.
bool Machine::CompleteBarriers() {
  std::uint64_t popc = 0;
  std::size_t waiting = 0;
  std::size_t live = 0;
  const Thread* first = nullptr;
  for (const Thread& t : threads_) {
    if (t.state == ThreadState::kDone) continue;
    ++live;
    if (t.state != ThreadState::kBarrier) return false;
    if (first == nullptr) first = &t;
    if (t.barrier != first->barrier) return false;
    ++waiting;
    if (!t.sources.empty() && t.sources[0] != 0) ++popc;
  }
  if (waiting == 0) return false;
  for (Thread& t : threads_) {
    if (t.state != ThreadState::kBarrier) continue;
    t.state = ThreadState::kReady;
    if (t.sources.empty()) continue;
    const std::uint64_t value = t.opcode->Has("popc")  ? popc
                                : t.opcode->Has("and") ? popc == live
                                                       : popc != 0;
    const Activation& call = t.calls.back();
    const ast::Instruction& in = call.function->instructions[call.next - 1];
    if (!Write(&t, call.function->OperandsOf(in)[0], value).ok()) return false;
  }
  return true;
}

// True when some threads can go on.
Result<bool> Machine::CompleteCollectives() {
  bool some = false;
  for (Thread& t : threads_) {
    if (t.state != ThreadState::kCollective) continue;
    std::vector<Thread*> group;
    bool complete = Bit(t.mask, t.lane());
    for (Thread& other : threads_) {
      if (other.warp() != t.warp() || !Bit(t.mask, other.lane()) ||
          other.state == ThreadState::kDone) {
        continue;
      }
      complete = complete && other.state == ThreadState::kCollective &&
                 other.opcode == t.opcode && other.mask == t.mask;
      group.push_back(&other);
    }
    if (!complete) continue;
    POS_RETURN_IF_ERROR(Collective(group));
    some = true;
  }
  return some;
}

Status Machine::Collective(std::span<Thread* const> group) {
  std::vector<Outcome> outcomes;
  for (const Thread* t : group) outcomes.push_back(OutcomeOf(*t, group));
  for (std::size_t i = 0; i < group.size(); ++i) {
    Thread* const t = group[i];
    t->state = ThreadState::kReady;
    const Activation& call = t->calls.back();
    const auto operands =
        call.function->OperandsOf(call.function->instructions[call.next - 1]);
    if (t->opcode->base == "bar") continue;
    POS_RETURN_IF_ERROR(Write(t, operands[0], outcomes[i].value));
    if (operands[0].paired) {
      POS_RETURN_IF_ERROR(
          Write(t, operands[1], outcomes[i].predicate.value_or(false)));
    }
  }
  return OkStatus();
}

}  // namespace pos::ptx::testing
