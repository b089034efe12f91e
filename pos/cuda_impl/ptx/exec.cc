#include "pos/cuda_impl/ptx/exec.h"

#include <cpuid.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "pos/base/mutex.h"
#include "pos/cuda_impl/ptx/ast.h"
#include "pos/cuda_impl/ptx/call_graph.h"
#include "pos/cuda_impl/ptx/decode.h"
#include "pos/cuda_impl/ptx/isa/isa.h"
#include "pos/cuda_impl/ptx/levels.h"

namespace pos::ptx {
namespace {

// x86-64-v3 beyond AVX2, FMA and BMI, which __builtin_cpu_supports knows in
// every compiler: MOVBE, F16C and LZCNT.
bool HasRestOfV3() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned kMovbe = 1u << 22;
  constexpr unsigned kF16c = 1u << 29;
  constexpr unsigned kLzcnt = 1u << 5;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kMovbe) == 0 ||
      (ecx & kF16c) == 0) {
    return false;
  }
  return __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) != 0 &&
         (ecx & kLzcnt) != 0;
}

IsaLevel LevelOfProcessor() {
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") != 0 &&
                  __builtin_cpu_supports("fma") != 0 &&
                  __builtin_cpu_supports("bmi") != 0 &&
                  __builtin_cpu_supports("bmi2") != 0 && HasRestOfV3();
  const bool v4 = __builtin_cpu_supports("avx512f") != 0 &&
                  __builtin_cpu_supports("avx512bw") != 0 &&
                  __builtin_cpu_supports("avx512cd") != 0 &&
                  __builtin_cpu_supports("avx512dq") != 0 &&
                  __builtin_cpu_supports("avx512vl") != 0;
  if (v3 && v4) return IsaLevel::kV4;
  return v3 ? IsaLevel::kV3 : IsaLevel::kBaseline;
}

}  // namespace

std::string_view IsaLevelName(IsaLevel level) {
  switch (level) {
    case IsaLevel::kV4:
      return "x86-64-v4";
    case IsaLevel::kV3:
      return "x86-64-v3";
    case IsaLevel::kBaseline:
      break;
  }
  return "x86-64";
}

IsaLevel BestIsaLevel() {
  static const IsaLevel kBest = [] {
    const IsaLevel processor = std::min(LevelOfProcessor(), kBestBuiltLevel);
    const char* const wanted = std::getenv("POS_PTX_ISA");
    if (wanted == nullptr) return processor;
    for (const IsaLevel level :
         {IsaLevel::kBaseline, IsaLevel::kV3, IsaLevel::kV4}) {
      if (IsaLevelName(level) == wanted && level <= processor) return level;
    }
    return processor;
  }();
  return kBest;
}

LanePolicy DefaultLanePolicy() {
  static const LanePolicy kDefault = [] {
    const char* const wanted = std::getenv("POS_PTX_LANES");
    const std::string_view name = wanted == nullptr ? "" : wanted;
    if (name == "masked") return LanePolicy::kMasked;
    return name == "apart" ? LanePolicy::kApart : LanePolicy::kTogether;
  }();
  return kDefault;
}

Kernel::Kernel(const Entry* entry, std::unique_ptr<const Program> program)
    : entry_(entry), program_(std::move(program)) {}
Kernel::~Kernel() = default;

struct LoadedModule::Rep {
  std::shared_ptr<const Module> module;
  std::vector<std::uint64_t> addresses;
  const IsaTable* isa = nullptr;

  struct Known {
    std::unique_ptr<const Kernel> kernel;
    Status status;
  };
  Mutex mu;
  std::map<std::string, Known, std::less<>> kernels POS_GUARDED_BY(mu);
  std::unique_ptr<CallGraph> graph POS_GUARDED_BY(mu);

  Result<std::unique_ptr<Program>> DecodeEntry(std::uint32_t index)
      POS_REQUIRES(mu);
};

Result<std::unique_ptr<Program>> LoadedModule::Rep::DecodeEntry(
    std::uint32_t index) {
  const ast::Unit& unit = module->unit();
  if (!unit.entries[index].unsupported.empty()) {
    return Incompatible("kernel " + unit.entries[index].name + ": " +
                        unit.entries[index].unsupported);
  }
  if (graph == nullptr) graph = std::make_unique<CallGraph>(unit);
  const std::uint32_t function = unit.entry_functions[index];
  const std::vector<std::uint32_t> reach = graph->Reachable(function);
  if (reach.empty()) return Incompatible("a call graph too large to support");
  POS_ASSIGN_OR_RETURN(std::unique_ptr<Program> program,
                       Decode(unit, reach, addresses, *isa));
  const CallGraph::Depth depth = graph->Deepest(function);
  program->local_bytes = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(depth.local_bytes, 1u << 26));
  program->call_depth = depth.calls;
  program->recursive = depth.recursive;
  program->module = module;
  program->entry = index;
  return program;
}

LoadedModule::LoadedModule(std::shared_ptr<const Module> module,
                           std::vector<std::uint64_t> variable_addresses,
                           IsaLevel level)
    : rep_(std::make_unique<Rep>()) {
  rep_->module = std::move(module);
  rep_->addresses = std::move(variable_addresses);
  rep_->addresses.resize(rep_->module->variables().size(), 0);
  rep_->isa = &TableOf(level);
}
LoadedModule::~LoadedModule() = default;

const Module& LoadedModule::module() const { return *rep_->module; }

std::vector<std::byte> LoadedModule::InitialBytes(std::size_t index) const {
  const Variable& variable = rep_->module->variables()[index];
  std::vector<std::byte> bytes = variable.initial;
  for (const Relocation& relocation : variable.relocations) {
    std::uint64_t value =
        relocation.kind == Relocation::Kind::kVariable
            ? rep_->addresses[relocation.symbol]
            : CodeAddress(rep_->module->unit(),
                          Unalias(rep_->module->unit(), relocation.symbol));
    value += static_cast<std::uint64_t>(relocation.addend);
    value >>= relocation.shift;
    std::memcpy(bytes.data() + relocation.offset, &value, relocation.bytes);
  }
  return bytes;
}

Result<const Kernel*> LoadedModule::GetKernel(std::string_view name) {
  const MutexLock lock(&rep_->mu);
  const auto known = rep_->kernels.find(name);
  if (known != rep_->kernels.end()) {
    if (known->second.kernel == nullptr) return known->second.status;
    return known->second.kernel.get();
  }
  const ast::Unit& unit = rep_->module->unit();
  const auto found = unit.entry_index.find(std::string(name));
  if (found == unit.entry_index.end()) {
    return NoSuch("the module has no kernel " + std::string(name));
  }
  Rep::Known& made = rep_->kernels[std::string(name)];
  Result<std::unique_ptr<Program>> program = rep_->DecodeEntry(found->second);
  if (!program.ok()) {
    made.status = program.status();
    return made.status;
  }
  made.kernel.reset(
      new Kernel(&unit.entries[found->second], std::move(program).value()));
  return made.kernel.get();
}

}  // namespace pos::ptx
