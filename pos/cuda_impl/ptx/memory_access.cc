// The way from an address to an allocation when an instruction's own cache does
// not know it, and what happens when there is none.
#include <algorithm>
#include <cstring>
#include <string>

#include "pos/cuda_impl/ptx/ast.h"
#include "pos/cuda_impl/ptx/block.h"

namespace pos::ptx {
namespace {

bool Covers(const AccessCache& range, std::uint64_t address,
            std::uint64_t bytes) {
  return address >= range.base && address < range.limit &&
         range.limit - address >= bytes;
}

// The range that contains the access; base == limit when there is none.
AccessCache Find(Warp* warp, std::uint64_t address, std::uint64_t bytes) {
  Worker* const worker = warp->worker;
  for (const AccessCache& recent : worker->recent) {
    if (Covers(recent, address, bytes)) return recent;
  }
  AccessCache found{0, 0};
  const LaunchState& launch = *warp->block->launch;
  const auto workspace = reinterpret_cast<std::uint64_t>(launch.workspace);
  if (workspace != 0 && address - workspace < kWorkspaceBytes) {
    found = {workspace, workspace + kWorkspaceBytes};
  } else {
    const MemoryView::Range range = worker->memory->Find(address);
    found = {range.base, range.limit};
  }
  if (!Covers(found, address, bytes)) return {0, 0};
  worker->recent[worker->next_recent] = found;
  worker->next_recent = (worker->next_recent + 1) % Worker::kRecent;
  return found;
}

std::string Triple(const std::array<std::uint32_t, 3>& v) {
  return "(" + std::to_string(v[0]) + "," + std::to_string(v[1]) + "," +
         std::to_string(v[2]) + ")";
}

std::string HexOf(std::uint64_t value) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  do {
    text.insert(text.begin(), kDigits[value & 15]);
    value >>= 4;
  } while (value != 0);
  return "0x" + text;
}

}  // namespace

std::array<std::uint32_t, 3> ThreadIndex(const Warp& warp, std::uint32_t lane) {
  const auto& shape = warp.block->launch->block;
  const std::uint32_t thread = warp.index * kLanes + lane;
  return {thread % shape[0], thread / shape[0] % shape[1],
          thread / shape[0] / shape[1]};
}

bool FindAccess(Warp* warp, const Inst* at, std::uint32_t lane,
                std::uint64_t address, std::uint32_t bytes) {
  const AccessCache found = Find(warp, address, bytes);
  if (found.base == found.limit) {
    RaiseFault(warp, at, lane, kErrorIllegalAddress, address,
               "access outside of every allocation");
    return false;
  }
  warp->cache[at->cache] = found;
  return true;
}

const Inst* RaiseFault(Warp* warp, const Inst* at, std::uint32_t lane,
                       std::int32_t error, std::uint64_t address,
                       const char* what) {
  const Block& block = *warp->block;
  const Program& program = *warp->program;
  const ast::Unit& unit = program.module->unit();
  const Program::Source& source = program.sources[at->source];
  const ast::Function& function = unit.functions[source.unit_function];
  Fault fault;
  fault.error = error;
  fault.address = address;
  fault.text = "kernel " + block.launch->kernel->entry().name + ", block " +
               Triple(block.index) + ", thread " +
               Triple(ThreadIndex(*warp, lane)) + ": " + what;
  if (error == kErrorIllegalAddress || error == kErrorMisalignedAddress) {
    fault.text += " at " + HexOf(address);
  }
  if (source.instruction < function.instructions.size()) {
    const ast::Instruction& instruction =
        function.instructions[source.instruction];
    fault.text += "; " + unit.opcodes[instruction.opcode] + " at line " +
                  std::to_string(instruction.line) + " of the PTX, in " +
                  function.name;
  }
  block.faults->Report(std::move(fault));
  warp->state = WarpState::kFaulted;
  return nullptr;
}

std::byte* SharedAt(Warp* warp, const Inst* at, std::uint32_t lane,
                    std::uint32_t address, std::uint32_t bytes,
                    std::uint32_t alignment) {
  if ((address & (alignment - 1)) != 0) {
    RaiseFault(warp, at, lane, kErrorMisalignedAddress, address,
               "misaligned access");
    return nullptr;
  }
  if (std::uint64_t{address} + bytes > warp->shared_bytes) {
    RaiseFault(warp, at, lane, kErrorIllegalAddress, address,
               "access beyond the block's shared memory");
    return nullptr;
  }
  return warp->shared + address;
}

std::byte* GlobalAt(Warp* warp, const Inst* at, std::uint32_t lane,
                    std::uint64_t address, std::uint32_t bytes,
                    std::uint32_t alignment) {
  if ((address & (alignment - 1)) != 0) {
    RaiseFault(warp, at, lane, kErrorMisalignedAddress, address,
               "misaligned access");
    return nullptr;
  }
  const AccessCache found = Find(warp, address, bytes);
  if (found.base == found.limit) {
    RaiseFault(warp, at, lane, kErrorIllegalAddress, address,
               "access outside of every allocation");
    return nullptr;
  }
  return reinterpret_cast<std::byte*>(address);
}

// The memory behind [address, address + bytes), as `lane` sees it.
std::byte* GenericPointer(Warp* warp, std::uint32_t lane, std::uint64_t address,
                          std::uint64_t bytes) {
  const std::uint64_t low = address & 0xffffffff;
  switch (address & ~std::uint64_t{0xffffffff}) {
    case kSharedWindow:
      return low + bytes <= warp->shared_bytes ? warp->shared + low : nullptr;
    case kLocalWindow:
      return low + bytes <= warp->local_stride
                 ? warp->local + std::size_t{lane} * warp->local_stride + low
                 : nullptr;
    case kParamWindow:
      return low + bytes <= warp->params_bytes
                 ? const_cast<std::byte*>(warp->params) + low
                 : nullptr;
    default:
      break;
  }
  const AccessCache found = Find(warp, address, bytes);
  return found.base == found.limit ? nullptr
                                   : reinterpret_cast<std::byte*>(address);
}

bool ReadGeneric(Warp* warp, std::uint32_t lane, std::uint64_t address,
                 void* to, std::size_t bytes) {
  const std::byte* from = GenericPointer(warp, lane, address, bytes);
  if (from == nullptr) return false;
  std::memcpy(to, from, bytes);
  return true;
}

bool ReadString(Warp* warp, std::uint32_t lane, std::uint64_t address,
                std::size_t most, std::string* out) {
  out->clear();
  while (out->size() < most) {
    const std::byte* at = GenericPointer(warp, lane, address + out->size(), 1);
    if (at == nullptr) return false;
    const char c = static_cast<char>(*at);
    if (c == '\0') return true;
    out->push_back(c);
  }
  return true;
}

}  // namespace pos::ptx
