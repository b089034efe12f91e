#include "pos/cuda_impl/worker/call_access.h"

#include <cuda.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <span>

#include "pos/cuda_impl/worker/kernel_access.h"

namespace pos::cuda {
namespace {

template <typename T>
T* ObjectOf(const Handle* handle) {
  return static_cast<T*>(handle->object.get());
}

// Rows that lie closer than this are named as one range, gaps included, and so
// are rows that are more.
constexpr std::uint64_t kGapBytes = 64 << 10;
constexpr std::uint64_t kMostRows = 64;

std::uint64_t Times(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product)
             ? std::numeric_limits<std::uint64_t>::max()
             : product;
}

std::uint64_t Plus(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum)
             ? std::numeric_limits<std::uint64_t>::max()
             : sum;
}

// The parameters of a launch, without what may follow them.
std::span<const std::byte> ParamsOf(const ApiContext& call) {
  const std::span<const std::byte> all = call.Inline();
  const bool extended =
      (call.Args<LaunchArgs>().cooperative & kLaunchExtended) != 0;
  if (!extended || all.size() < sizeof(LaunchExtension)) return all;
  return all.first(all.size() - sizeof(LaunchExtension));
}

// Variables lie next to each other; a module can have thousands.
void AddJoined(const WorkerBlock& block, std::vector<MemoryRange>* ranges) {
  if (!ranges->empty()) {
    MemoryRange& last = ranges->back();
    if (block.address >= last.address &&
        block.address - last.address <= last.bytes + kGapBytes) {
      last.bytes =
          std::max(last.bytes, block.address - last.address + block.bytes);
      return;
    }
  }
  ranges->push_back({block.address, block.bytes});
}

bool Holds(std::span<const MemoryRange> ranges, std::uint64_t address) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [address](const MemoryRange& range) {
                       return address - range.address < range.bytes;
                     });
}

}  // namespace

const CallAccess* CallAccessFinder::Find(const ApiContext& call) {
  set_.Clear();
  set_.basis = AccessBasis::kProven;
  access_ = {.pc = call.pc, .what = call.info->name, .set = &set_};
  switch (static_cast<Op>(call.info->op)) {
    case Op::kCopyToDevice: {
      const auto& args = call.Args<CopyToDeviceArgs>();
      OnStream(call);
      spans_.AddDevicePart(args.dst, args.bytes, &set_.writes);
      break;
    }
    case Op::kCopyFromDevice: {
      const auto& args = call.Args<CopyFromDeviceArgs>();
      OnStream(call);
      spans_.AddDevicePart(args.src, args.bytes, &set_.reads);
      break;
    }
    case Op::kCopy: {
      const auto& args = call.Args<CopyArgs>();
      OnStream(call);
      spans_.AddDevicePart(args.src, args.bytes, &set_.reads);
      spans_.AddDevicePart(args.dst, args.bytes, &set_.writes);
      break;
    }
    case Op::kFill:
      OnStream(call);
      FindFill(call.Args<FillArgs>());
      break;
    case Op::kLaunch:
      OnStream(call);
      FindLaunch(call);
      return &access_;
    case Op::kMemAlloc:
    case Op::kMemAllocAsync:
      Make(call.scratch[0], call.scratch[1],
           static_cast<int>(call.handles[0]->parser_word));
      break;
    case Op::kPhysicalMap: {
      const auto& args = call.Args<PhysicalMapArgs>();
      Make(args.address, args.bytes, static_cast<int>(call.scratch[0]));
      break;
    }
    case Op::kMemFree:
      ReleaseBlock(call.Args<MemFreeArgs>().address);
      break;
    case Op::kMemFreeAsync:
      OnStream(call);
      ReleaseBlock(call.Args<MemFreeAsyncArgs>().address);
      break;
    case Op::kPhysicalUnmap:
      ReleaseMappings(call.Args<PhysicalUnmapArgs>());
      break;
    case Op::kSetAccess:
      if (call.Args<SetAccessArgs>().allowed != 0) return nullptr;
      ReleaseAccess(call.Args<SetAccessArgs>());
      break;
    case Op::kModuleUnload:
      ReleaseModule(call);
      break;
    case Op::kCtxDestroy:
      ReleaseContext(call);
      break;
    case Op::kCtxSetLimit:
      FindLimit(call);
      break;
    default:
      return nullptr;
  }
  if (set_.reads.empty() && set_.writes.empty()) return nullptr;
  if (!access_.releases && !access_.makes) {
    spans_.AddAliases(&set_.reads);
    spans_.AddAliases(&set_.writes);
  }
  return &access_;
}

void CallAccessFinder::OnStream(const ApiContext& call) {
  access_.stream = ObjectOf<StreamObject>(call.handles[0])->stream;
  access_.device = ObjectOf<ContextObject>(call.handles[0]->parents[0])->device;
}

void CallAccessFinder::FindFill(const FillArgs& args) {
  const std::uint64_t row = Times(args.count, args.width);
  if (row == 0 || args.rows == 0) return;
  const bool close = args.pitch < Plus(row, kGapBytes);
  if (close || args.rows > kMostRows) {
    spans_.AddDevicePart(args.dst, Plus(Times(args.rows - 1, args.pitch), row),
                         &set_.writes);
    return;
  }
  std::uint64_t at = args.dst;
  for (std::uint64_t i = 0; i < args.rows; ++i) {
    spans_.AddDevicePart(at, row, &set_.writes);
    at = Plus(at, args.pitch);
  }
}

void CallAccessFinder::FindLaunch(const ApiContext& call) {
  const auto* const function = ObjectOf<FunctionObject>(call.handles[1]);
  access_.what = function->function->info().name;
  bool found = false;
  if (function->access != nullptr) {
    const auto& args = call.Args<LaunchArgs>();
    LaunchConfig config;
    config.grid = {args.grid_x, args.grid_y, args.grid_z};
    config.block = {args.block_x, args.block_y, args.block_z};
    config.dynamic_shared_bytes = args.shared_bytes;
    config.cooperative = (args.cooperative & kLaunchCooperative) != 0;
    set_.Clear();
    found = function->access->Find(config, ParamsOf(call), spans_, &set_);
  }
  if (!found) GuessLaunch(call);
  spans_.AddAliases(&set_.reads);
  spans_.AddAliases(&set_.writes);
}

void CallAccessFinder::GuessLaunch(const ApiContext& call) {
  set_.Clear();
  set_.basis = AccessBasis::kGuessed;
  const std::span<const std::byte> params = ParamsOf(call);
  for (std::size_t at = 0; at + sizeof(DeviceAddress) <= params.size();
       at += 4) {
    DeviceAddress address = 0;
    std::memcpy(&address, params.data() + at, sizeof(address));
    if (Holds(set_.writes, address)) continue;
    const MemoryRange range = spans_.Allocation(address);
    if (range.bytes != 0) set_.writes.push_back(range);
  }
  // A function's parent is its module.
  const auto* const module =
      ObjectOf<ModuleObject>(call.handles[1]->parents[0]);
  for (const std::uint64_t address : module->writable) {
    const WorkerBlock* const block = memory_->Find(address);
    if (block != nullptr) AddJoined(*block, &set_.writes);
  }
  const auto* const context =
      ObjectOf<ContextObject>(call.handles[0]->parents[0]);
  const bool heap =
      context->heap_used ||
      ObjectOf<FunctionObject>(call.handles[1])->function->info().uses_heap;
  if (heap && context->heap != 0) {
    set_.writes.push_back(spans_.Allocation(context->heap));
  }
}

void CallAccessFinder::Make(std::uint64_t address, std::uint64_t bytes,
                            int device) {
  access_.makes = true;
  access_.device = device;
  set_.writes.push_back({address, bytes});
}

void CallAccessFinder::ReleaseBlock(std::uint64_t address) {
  access_.releases = true;
  const WorkerBlock* const block = memory_->Find(address);
  if (block == nullptr) return;
  access_.device = block->device;
  set_.writes.push_back({block->address, block->bytes});
}

void CallAccessFinder::ReleaseContext(const ApiContext& call) {
  const Handle* const handle = call.handles[0];
  access_.releases = true;
  access_.device = ObjectOf<ContextObject>(handle)->device;
  for (const auto& [address, block] : memory_->blocks()) {
    if (block.context != handle->id || block.releasing) continue;
    set_.writes.push_back({address, block.bytes});
  }
}

void CallAccessFinder::ReleaseModule(const ApiContext& call) {
  const auto* const module = ObjectOf<ModuleObject>(call.handles[0]);
  access_.releases = true;
  access_.device = module->device;
  for (const std::uint64_t address : module->placed) {
    const WorkerBlock* const block = memory_->Find(address);
    if (block != nullptr) set_.writes.push_back({address, block->bytes});
  }
}

void CallAccessFinder::ReleaseMappings(const PhysicalUnmapArgs& args) {
  access_.releases = true;
  const std::uint64_t end = Plus(args.address, args.bytes);
  std::uint64_t at = args.address;
  while (at < end) {
    const WorkerBlock* const block = memory_->Find(at);
    if (block == nullptr || block->physical == 0) return;  // it fails there
    access_.device = block->device;
    set_.writes.push_back({at, block->bytes});
    at += block->bytes;
  }
}

// Its content stays, but nobody can read it from then on.
void CallAccessFinder::ReleaseAccess(const SetAccessArgs& args) {
  access_.releases = true;
  const std::uint64_t end = Plus(args.address, args.bytes);
  std::uint64_t at = args.address;
  while (at < end) {
    const WorkerBlock* const block = memory_->Find(at);
    if (block == nullptr) return;  // it fails there
    if (block->accessible) {
      access_.device = block->device;
      set_.writes.push_back({at, block->bytes});
    }
    at += block->bytes;
  }
}

// A heap that is there is placed again.
void CallAccessFinder::FindLimit(const ApiContext& call) {
  const auto* const context = ObjectOf<ContextObject>(call.handles[0]);
  if (call.Args<CtxSetLimitArgs>().limit != CU_LIMIT_MALLOC_HEAP_SIZE ||
      context->heap == 0 || context->heap_used) {
    return;
  }
  ReleaseBlock(context->heap);
}

}  // namespace pos::cuda
