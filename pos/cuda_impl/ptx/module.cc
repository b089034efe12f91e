#include "pos/cuda_impl/ptx/module.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "pos/cuda_impl/ptx/ast.h"
#include "pos/cuda_impl/ptx/call_graph.h"
#include "pos/cuda_impl/ptx/opcodes.h"
#include "pos/cuda_impl/ptx/parser.h"

namespace pos::ptx {

Type ast::Function::TypeOfRegister(std::uint32_t reg) const {
  const auto after =
      std::upper_bound(registers.begin(), registers.end(), reg,
                       [](std::uint32_t number, const RegisterRange& range) {
                         return number < range.first;
                       });
  if (after == registers.begin()) return Type::kNone;
  const RegisterRange& range = *(after - 1);
  return reg - range.first < range.count ? range.type : Type::kNone;
}

namespace {

constexpr std::uint32_t kMaxThreads = 1024;

std::uint64_t AlignUp(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

bool DescribeParams(const ast::Function& function, Entry* entry) {
  std::uint64_t offset = 0;
  for (const ast::Storage& formal : function.params) {
    offset = AlignUp(offset, formal.alignment);
    if (offset + formal.bytes > Module::kMaxParamBytes) return false;
    entry->params.push_back({formal.name, static_cast<std::uint32_t>(offset),
                             static_cast<std::uint32_t>(formal.bytes),
                             formal.alignment});
    offset += formal.bytes;
  }
  entry->params_bytes = static_cast<std::uint32_t>(offset);
  return true;
}

std::uint32_t Threads(const std::uint32_t (&counts)[3]) {
  const std::uint64_t xy = std::uint64_t{counts[0]} * counts[1];
  if (xy == 0 || xy > kMaxThreads) return kMaxThreads;
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(xy * counts[2], kMaxThreads));
}

// .shared of all functions in `reach`, laid out one after the other.
void DescribeShared(const ast::Unit& unit,
                    const std::vector<std::uint32_t>& reach, Entry* entry) {
  const SharedLayout layout = LayOutShared(unit, reach);
  entry->static_shared_bytes =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(
          layout.bytes, std::numeric_limits<std::uint32_t>::max()));
  entry->uses_dynamic_shared = layout.uses_dynamic;
}

void FindShared(ast::Function* function) {
  std::vector<std::uint32_t>& used = function->shared_used;
  for (const ast::Operand& operand : function->operands) {
    if (operand.kind == ast::OperandKind::kShared)
      used.push_back(operand.index);
  }
  std::sort(used.begin(), used.end());
  used.erase(std::unique(used.begin(), used.end()), used.end());
}

// A kernel that keeps n values alive needs about that many registers; without
// looking at the code, n grows slowly with its size. At most 64, so that 1,024
// threads fit.
std::uint32_t EstimateRegisters(const ast::Function& function) {
  const auto instructions =
      static_cast<std::uint32_t>(function.instructions.size());
  return std::min(64u, 16u + instructions / 16u);
}

// Why the functions in `reach` cannot run; empty when they can.
std::string WhyUnsupported(const ast::Unit& unit,
                           const std::vector<std::string>& reasons,
                           const std::vector<std::uint32_t>& reach) {
  for (const std::uint32_t number : reach) {
    const ast::Function& function = unit.functions[number];
    if (!reasons[number].empty()) return reasons[number];
    if (!function.defined && !IsBuiltin(function.name)) {
      return "function " + function.name + " is defined in another module";
    }
  }
  return "";
}

// What `reach` uses of the driver.
void DescribeBuiltins(const ast::Unit& unit,
                      const std::vector<std::uint32_t>& reach, Entry* entry) {
  for (const std::uint32_t number : reach) {
    const ast::Function& function = unit.functions[number];
    if (function.defined) continue;
    const std::string& name = function.name;
    entry->prints =
        entry->prints || name == "vprintf" || name == "__assertfail";
    entry->uses_heap = entry->uses_heap || name == "malloc" || name == "free";
  }
}

// The first instruction of `function` that is not implemented.
std::string FirstUnsupported(const ast::Unit& unit,
                             const std::vector<bool>& known,
                             const ast::Function& function) {
  for (const ast::Instruction& instruction : function.instructions) {
    if (known[instruction.opcode]) continue;
    return "instruction " + unit.opcodes[instruction.opcode] + " at line " +
           std::to_string(instruction.line) + " in " + function.name +
           " is not supported";
  }
  for (const std::string& name : function.unknown) {
    return "register " + name + " in " + function.name + " is not known";
  }
  return "";
}

}  // namespace

SharedLayout LayOutShared(const ast::Unit& unit,
                          const std::vector<std::uint32_t>& reach) {
  SharedLayout layout;
  std::vector<std::uint32_t> dynamic;
  for (const std::uint32_t number : reach) {
    for (const std::uint32_t index : unit.functions[number].shared_used) {
      const ast::Storage& storage = unit.shared[index];
      if (!layout.offsets.try_emplace(index, 0).second) continue;
      if (storage.dynamic) {
        dynamic.push_back(index);
        continue;
      }
      layout.bytes = AlignUp(layout.bytes, storage.alignment);
      layout.offsets[index] = static_cast<std::uint32_t>(layout.bytes);
      layout.bytes += storage.bytes;
      if (layout.bytes > SharedLayout::kMaxBytes) return layout;
    }
  }
  layout.uses_dynamic = !dynamic.empty();
  for (const std::uint32_t index : dynamic) {
    layout.bytes = AlignUp(layout.bytes, unit.shared[index].alignment);
  }
  for (const std::uint32_t index : dynamic) {
    layout.offsets[index] = static_cast<std::uint32_t>(layout.bytes);
  }
  return layout;
}

Module::Module(std::unique_ptr<ast::Unit> unit) : unit_(std::move(unit)) {}
Module::~Module() = default;

const std::vector<Variable>& Module::variables() const {
  return unit_->variables;
}
const std::vector<Entry>& Module::entries() const { return unit_->entries; }
int Module::isa_major() const { return unit_->major; }
int Module::isa_minor() const { return unit_->minor; }
int Module::target_sm() const { return unit_->sm; }

const Entry* Module::FindEntry(std::string_view name) const {
  const auto found = unit_->entry_index.find(std::string(name));
  return found == unit_->entry_index.end() ? nullptr
                                           : &unit_->entries[found->second];
}

Status Module::Describe() {
  ast::Unit& unit = *unit_;
  unit.address_taken = AddressTaken(unit);
  for (ast::Function& function : unit.functions) FindShared(&function);
  CallGraph graph(unit);
  std::vector<bool> known(unit.opcodes.size());
  for (std::size_t i = 0; i < known.size(); ++i) {
    known[i] = IsSupported(unit.opcodes[i]);
  }
  std::vector<std::string> reasons;
  for (const ast::Function& function : unit.functions) {
    reasons.push_back(FirstUnsupported(unit, known, function));
  }
  for (std::uint32_t i = 0; i < unit.functions.size(); ++i) {
    const ast::Function& function = unit.functions[i];
    if (!function.entry || !function.defined) continue;
    Entry entry;
    entry.name = function.name;
    if (!DescribeParams(function, &entry)) {
      return Invalid("kernel " + function.name + " has more than " +
                     std::to_string(kMaxParamBytes) + " bytes of parameters");
    }
    const std::vector<std::uint32_t> reach = graph.Reachable(i);
    if (reach.empty()) return Invalid("a call graph too large to support");
    DescribeShared(unit, reach, &entry);
    DescribeBuiltins(unit, reach, &entry);
    if (entry.static_shared_bytes > SharedLayout::kMaxBytes) {
      entry.unsupported = "more shared memory than any device has";
    }
    const CallGraph::Depth depth = graph.Deepest(i);
    entry.local_bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(
        depth.local_bytes, std::numeric_limits<std::uint32_t>::max()));
    entry.recursive = depth.recursive;
    const bool required = function.required_threads[0] != 0;
    entry.max_threads_per_block =
        Threads(required ? function.required_threads : function.max_threads);
    std::copy(std::begin(function.required_threads),
              std::end(function.required_threads),
              std::begin(entry.required_block));
    entry.min_blocks_per_sm = function.min_blocks_per_sm;
    entry.registers = EstimateRegisters(function);
    if (entry.unsupported.empty()) {
      entry.unsupported = WhyUnsupported(unit, reasons, reach);
    }
    if (entry.unsupported.empty() && function.cluster) {
      entry.unsupported = "clusters of more than one block are not supported";
    }
    unit.entry_index.emplace(entry.name,
                             static_cast<std::uint32_t>(unit.entries.size()));
    unit.entries.push_back(std::move(entry));
    unit.entry_functions.push_back(i);
  }
  return OkStatus();
}

Result<std::shared_ptr<const Module>> Module::Parse(std::string_view text) {
  return Link(std::span(&text, 1));
}

Result<std::shared_ptr<const Module>> Module::Link(
    std::span<const std::string_view> texts) {
  std::vector<std::string_view> whole;
  for (const std::string_view text : texts) {
    whole.push_back(text.substr(0, text.find('\0')));
  }
  Parser parser(whole);
  if (!parser.Run()) return parser.status();
  std::shared_ptr<Module> module(new Module(parser.TakeUnit()));
  POS_RETURN_IF_ERROR(module->Describe());
  return std::shared_ptr<const Module>(std::move(module));
}

}  // namespace pos::ptx
