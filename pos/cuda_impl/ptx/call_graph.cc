#include "pos/cuda_impl/ptx/call_graph.h"

#include <algorithm>
#include <string_view>

namespace pos::ptx {
namespace {

constexpr std::uint64_t kMaxSteps = 50'000'000;

bool IsCall(const ast::Unit& unit, const ast::Instruction& instruction) {
  const std::string_view opcode = unit.opcodes[instruction.opcode];
  return opcode == "call" || opcode.starts_with("call.");
}

}  // namespace

std::uint32_t Unalias(const ast::Unit& unit, std::uint32_t function) {
  // A chain of aliases is at most as long as there are aliases.
  for (std::size_t i = 0; i <= unit.aliases.size(); ++i) {
    const auto found = unit.aliases.find(function);
    if (found == unit.aliases.end()) break;
    function = found->second;
  }
  return function;
}

std::vector<std::uint32_t> AddressTaken(const ast::Unit& unit) {
  std::vector<bool> taken(unit.functions.size(), false);
  for (const Variable& variable : unit.variables) {
    for (const Relocation& relocation : variable.relocations) {
      if (relocation.kind == Relocation::Kind::kFunction) {
        taken[relocation.symbol] = true;
      }
    }
  }
  for (const ast::Function& function : unit.functions) {
    // Every mention counts, but the target of a call.
    std::vector<std::uint32_t> targets;
    for (const ast::Instruction& instruction : function.instructions) {
      if (!IsCall(unit, instruction)) continue;
      for (std::uint32_t i = 0; i < instruction.operand_count; ++i) {
        targets.push_back(instruction.first_operand + i);
      }
    }
    std::size_t next = 0;
    for (std::uint32_t i = 0; i < function.operands.size(); ++i) {
      while (next < targets.size() && targets[next] < i) ++next;
      const bool is_target = next < targets.size() && targets[next] == i;
      const ast::Operand& operand = function.operands[i];
      if (operand.kind == ast::OperandKind::kFunction && !is_target) {
        taken[operand.index] = true;
      }
    }
  }
  std::vector<std::uint32_t> result;
  for (std::uint32_t i = 0; i < taken.size(); ++i) {
    if (taken[i]) result.push_back(i);
  }
  return result;
}

std::uint64_t LocalBytes(const ast::Function& function) {
  std::uint64_t bytes = 0;
  for (const ast::Storage& storage : function.variables) {
    if (storage.space != Space::kLocal) continue;
    const std::uint64_t mask = storage.alignment - 1;
    bytes = ((bytes + mask) & ~mask) + storage.bytes;
  }
  return (bytes + 15) & ~std::uint64_t{15};
}

CallGraph::CallGraph(const ast::Unit& unit)
    : unit_(unit),
      callees_(unit.functions.size()),
      depths_(unit.functions.size()),
      seen_(unit.functions.size(), 0) {
  for (std::uint32_t i = 0; i < unit.functions.size(); ++i) {
    AddCalls(unit.functions[i], i);
  }
  ComputeDepths();
}

void CallGraph::AddCalls(const ast::Function& function, std::uint32_t number) {
  std::vector<std::uint32_t>& callees = callees_[number];
  bool indirect = false;
  for (const ast::Instruction& instruction : function.instructions) {
    if (!IsCall(unit_, instruction)) continue;
    bool direct = false;
    for (const ast::Operand& operand : function.OperandsOf(instruction)) {
      if (operand.kind != ast::OperandKind::kFunction) continue;
      callees.push_back(Unalias(unit_, operand.index));
      direct = true;
    }
    indirect = indirect || !direct;
  }
  if (indirect) {
    for (const std::uint32_t taken : unit_.address_taken) {
      callees.push_back(Unalias(unit_, taken));
    }
  }
  std::sort(callees.begin(), callees.end());
  callees.erase(std::unique(callees.begin(), callees.end()), callees.end());
}

std::vector<std::uint32_t> CallGraph::Reachable(std::uint32_t function) {
  ++round_;
  std::vector<std::uint32_t> found{function};
  seen_[function] = round_;
  for (std::size_t i = 0; i < found.size(); ++i) {
    for (const std::uint32_t callee : callees_[found[i]]) {
      if (++steps_ > kMaxSteps) return {};
      if (seen_[callee] == round_) continue;
      seen_[callee] = round_;
      found.push_back(callee);
    }
  }
  return found;
}

// Depth-first, without recursion of our own: hostile graphs are deep. A call
// into a function that is still open is a cycle.
void CallGraph::ComputeDepths() {
  enum class State : std::uint8_t { kNew, kOpen, kDone };
  std::vector<State> state(callees_.size(), State::kNew);
  struct Open {
    std::uint32_t function = 0;
    std::size_t next = 0;
  };
  std::vector<Open> stack;
  for (std::uint32_t root = 0; root < callees_.size(); ++root) {
    if (state[root] != State::kNew) continue;
    stack.push_back({root, 0});
    state[root] = State::kOpen;
    while (!stack.empty()) {
      Open& top = stack.back();
      Depth& depth = depths_[top.function];
      if (top.next < callees_[top.function].size()) {
        const std::uint32_t callee = callees_[top.function][top.next++];
        if (state[callee] == State::kOpen) depth.recursive = true;
        if (state[callee] == State::kNew) {
          state[callee] = State::kOpen;
          stack.push_back({callee, 0});
        }
        continue;
      }
      Depth deepest;
      for (const std::uint32_t callee : callees_[top.function]) {
        const Depth& below = depths_[callee];
        deepest.local_bytes = std::max(deepest.local_bytes, below.local_bytes);
        deepest.calls = std::max(deepest.calls, below.calls);
        depth.recursive = depth.recursive || below.recursive;
      }
      depth.local_bytes =
          deepest.local_bytes + LocalBytes(unit_.functions[top.function]);
      depth.calls = deepest.calls + 1;
      state[top.function] = State::kDone;
      stack.pop_back();
    }
  }
}

}  // namespace pos::ptx
