#include "pos/cuda_impl/ptx/block.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <utility>

namespace pos::ptx {
namespace {

constexpr std::size_t kLine = 64;

std::size_t AlignUp(std::size_t bytes) {
  return (bytes + kLine - 1) & ~(kLine - 1);
}

// What one warp of the launch needs besides the Warp itself.
struct WarpBytes {
  std::size_t registers = 0;
  std::size_t params = 0;
  std::size_t lanes = 0;
  std::size_t local = 0;
  [[nodiscard]] std::size_t all() const {
    return registers + params + lanes + local;
  }
};

WarpBytes BytesOfWarp(const LaunchState& launch) {
  const ProgramFunction& kernel = launch.program->functions[0];
  WarpBytes bytes;
  bytes.registers = AlignUp(kernel.frame_bytes);
  bytes.params = AlignUp(std::size_t{kLanes} * kernel.param_bytes);
  bytes.lanes = AlignUp(launch.program->warp_bytes);
  bytes.local = AlignUp(std::size_t{kLanes} * launch.local_stride);
  return bytes;
}

void FillLanes(std::byte* to, std::uint32_t value) {
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    std::memcpy(to + 4 * lane, &value, 4);
  }
}

}  // namespace

std::byte* FrameArena::Take(std::size_t bytes) {
  bytes = AlignUp(bytes);
  while (current_ < chunks_.size()) {
    Chunk& chunk = chunks_[current_];
    if (chunk.bytes - used_ >= bytes) {
      std::byte* const at = chunk.begin + used_;
      used_ += bytes;
      return at;
    }
    ++current_;
    used_ = 0;
  }
  const std::size_t size = std::max(bytes, kChunkBytes);
  if (total_ + size > kMaxBytes) return nullptr;
  Chunk chunk;
  chunk.storage.reset(new (std::nothrow) std::byte[size + kLine]);
  if (chunk.storage == nullptr) return nullptr;
  void* aligned = chunk.storage.get();
  std::size_t space = size + kLine;
  chunk.begin =
      static_cast<std::byte*>(std::align(kLine, size, aligned, space));
  chunk.bytes = size;
  total_ += size;
  chunks_.push_back(std::move(chunk));
  used_ = bytes;
  return chunks_[current_].begin;
}

void FrameArena::Reset() {
  current_ = 0;
  used_ = 0;
}

void BlockMemory::FreeDeleter::operator()(std::byte* memory) const {
  std::free(memory);  // NOLINT: from aligned_alloc
}

bool BlockMemory::Reserve(std::size_t bytes) {
  if (bytes <= bytes_) return true;
  storage_.reset(
      static_cast<std::byte*>(std::aligned_alloc(kLine, AlignUp(bytes))));
  bytes_ = storage_ == nullptr ? 0 : bytes;
  lanes_program_ = nullptr;
  return storage_ != nullptr;
}

std::size_t BlockMemory::BytesFor(const LaunchState& launch) {
  return AlignUp(launch.shared_bytes) +
         launch.warps * BytesOfWarp(launch).all();
}

bool BlockMemory::Start(const LaunchState& launch, FaultSink* faults,
                        std::uint64_t number) {
  if (!Reserve(BytesFor(launch))) return false;
  if (warps_.size() < launch.warps) warps_.resize(launch.warps);
  const bool used_barriers =
      std::any_of(block_.barriers.begin(), block_.barriers.end(),
                  [](const BarrierState& barrier) { return barrier.used; });
  if (used_barriers) {
    for (BarrierState& barrier : block_.barriers) ResetBarrier(&barrier);
  }
  block_.launch = &launch;
  block_.faults = faults;
  block_.number = number;
  block_.index = {
      static_cast<std::uint32_t>(number % launch.grid[0]),
      static_cast<std::uint32_t>(number / launch.grid[0] % launch.grid[1]),
      static_cast<std::uint32_t>(number / launch.grid[0] / launch.grid[1])};
  block_.warps = warps_.data();
  block_.warp_count = launch.warps;
  block_.unfinished =
      launch.warps == kMaxWarps ? ~0u : (1u << launch.warps) - 1;
  block_.ready = block_.unfinished;
  block_.next = 0;
  block_.only_spun = false;
  block_.executed = 0;
  block_.frames.Reset();
  for (std::uint32_t w = 0; w < launch.warps; ++w) StartWarp(launch, w);
  lanes_program_ = launch.program;
  lanes_block_ = launch.block;
  return true;
}

void BlockMemory::StartWarp(const LaunchState& launch, std::uint32_t index) {
  const ProgramFunction& kernel = launch.program->functions[0];
  const WarpBytes bytes = BytesOfWarp(launch);
  std::byte* at =
      storage_.get() + AlignUp(launch.shared_bytes) + index * bytes.all();
  Warp& warp = warps_[index];
  const std::uint32_t first = index * kLanes;
  const std::uint32_t threads = std::min(launch.threads - first, kLanes);
  const std::uint32_t mask = threads == kLanes ? ~0u : (1u << threads) - 1;
  warp.kernel_frame = Frame{};
  warp.kernel_frame.registers = at;
  warp.kernel_frame.params = at + bytes.registers;
  warp.kernel_frame.param_bytes = kernel.param_bytes;
  warp.kernel_frame.live = mask;
  warp.base[kInFrame] = at;
  warp.base[kInProgram] = const_cast<std::byte*>(launch.program->constants);
  warp.base[kInLaunch] = launch.lanes;
  warp.base[kInWarp] = at + bytes.registers + bytes.params;
  warp.code = launch.program->code.data();
  warp.lists = launch.program->lists.data();
  warp.frame = &warp.kernel_frame;
  warp.shared = storage_.get();
  warp.shared_bytes = launch.shared_bytes;
  warp.local_stride = launch.local_stride;
  warp.local_frames = launch.local_frames;
  if (launch.program->takes_stack) {
    std::fill_n(warp.stack, kLanes, launch.local_stride);
  }
  warp.local = warp.base[kInWarp] + bytes.lanes;
  warp.params = launch.params;
  warp.params_bytes = launch.params_bytes;
  warp.live = mask;
  warp.program = launch.program;
  warp.block = &block_;
  warp.state = WarpState::kReady;
  warp.rotate = false;
  warp.straight = 0;
  warp.sync_ops = 0;
  warp.index = index;
  warp.turn = 0;
  warp.active_frames = nullptr;
  warp.free_frames = nullptr;
  warp.waiting_count = 0;
  warp.masked = launch.lane_policy == LanePolicy::kTogether ? 0 : 1;
  warp.apart = launch.lane_policy == LanePolicy::kApart;
  warp.active = mask;
  Suspend(&warp, warp.code + kernel.entry, FragmentState::kReady);
  for (const auto& [offset, size] : kernel.zero) {
    std::memset(at + offset, 0, size);
  }
  if (launch.program != lanes_program_ || launch.block != lanes_block_) {
    FillWarpLanes(launch, index, warp.base[kInWarp]);
  }
  FillBlockLanes(launch, warp.base[kInWarp]);
}

// What depends on the warp's place in the block.
void BlockMemory::FillWarpLanes(const LaunchState& launch, std::uint32_t index,
                                std::byte* lanes) {
  for (const Special special : launch.program->warp_specials) {
    if (special == Special::kWarpid) FillLanes(lanes, index);
    const int axis = special == Special::kTidX   ? 0
                     : special == Special::kTidY ? 1
                     : special == Special::kTidZ ? 2
                                                 : -1;
    for (std::uint32_t lane = 0; axis >= 0 && lane < kLanes; ++lane) {
      const std::uint32_t thread = index * kLanes + lane;
      const std::uint32_t id[] = {thread % launch.block[0],
                                  thread / launch.block[0] % launch.block[1],
                                  thread / launch.block[0] / launch.block[1]};
      std::memcpy(lanes + 4 * lane, &id[axis], 4);
    }
    lanes += 4 * kLanes;
  }
}

// What depends on the block's place in the grid.
void BlockMemory::FillBlockLanes(const LaunchState& launch,
                                 std::byte* lanes) const {
  for (const Special special : launch.program->warp_specials) {
    switch (special) {
      case Special::kCtaidX:
      case Special::kClusteridX:
        FillLanes(lanes, block_.index[0]);
        break;
      case Special::kCtaidY:
      case Special::kClusteridY:
        FillLanes(lanes, block_.index[1]);
        break;
      case Special::kCtaidZ:
      case Special::kClusteridZ:
        FillLanes(lanes, block_.index[2]);
        break;
      case Special::kSmid:
        FillLanes(lanes,
                  static_cast<std::uint32_t>(block_.number % launch.sm_count));
        break;
      default:
        break;
    }
    lanes += 4 * kLanes;
  }
}

BlockResult Block::Run(Worker* worker, std::int64_t* budget) {
  for (std::uint32_t w = 0; w < warp_count; ++w) {
    warps[w].worker = worker;
    warps[w].cache = worker->cache.data();
  }
  progress = false;
  while (unfinished != 0) {
    if (ready == 0) {
      return RaiseDeadlock();
    }
    if (*budget <= 0) break;
    // The next ready warp in turn.
    const std::uint32_t later = ready >> next << next;
    const auto w = static_cast<std::uint32_t>(
        std::countr_zero(later != 0 ? later : ready));
    next = (w + 1) % warp_count;
    Warp& warp = warps[w];
    BeginTurn(&warp);
    const std::int32_t slice = warp.slice;
    const Inst* at = Resume(&warp, warp.rotate);
    if (at != nullptr) launch->program->run(&warp, at);
    const std::int32_t used = std::max(slice - warp.slice, 1);
    *budget -= used;
    executed += static_cast<std::uint64_t>(used);
    if (warp.sync_ops == 0) progress = true;
    if (warp.state == WarpState::kFaulted || faults->stopped()) {
      return BlockResult::kStopped;
    }
    if (warp.state != WarpState::kReady) {
      ready &= ~(1u << w);
      if (warp.state == WarpState::kDone) progress = true;
    }
  }
  only_spun = !progress;
  return unfinished == 0 ? BlockResult::kDone : BlockResult::kMore;
}

// Nobody can run and somebody has not exited: everybody waits at barriers, or
// for lanes that wait there.
BlockResult Block::RaiseDeadlock() {
  const auto w = static_cast<std::size_t>(std::countr_zero(unfinished));
  Warp& warp = warps[w];
  const Fragment& fragment = warp.waiting[0];
  const auto lane = static_cast<std::uint32_t>(std::countr_zero(fragment.mask));
  const std::string what = "deadlock: " + DescribeWaiting(*this);
  RaiseFault(&warp, fragment.at, lane, kErrorLaunchFailed, 0, what.c_str());
  return BlockResult::kStopped;
}

}  // namespace pos::ptx
