// A block of threads while it runs, and the parts of a launch that blocks use.
//
// Threads:   a block belongs to the worker that runs it, or to the grid's queue
//            of started blocks; it is handed over through the queue's mutex.
// Ownership: a BlockMemory is pooled by workers; a Block lives in it.
#ifndef POS_CUDA_IMPL_PTX_BLOCK_H_
#define POS_CUDA_IMPL_PTX_BLOCK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "pos/cuda_impl/ptx/control.h"
#include "pos/cuda_impl/ptx/exec.h"
#include "pos/cuda_impl/ptx/program.h"
#include "pos/cuda_impl/ptx/warp.h"

namespace pos::ptx {

constexpr std::uint32_t kMaxWarps = 32;  // of one block

// A launch as its blocks see it. Constant while the grid runs.
struct LaunchState {
  const Program* program = nullptr;
  const Kernel* kernel = nullptr;
  std::array<std::uint32_t, 3> grid{1, 1, 1};
  std::array<std::uint32_t, 3> block{1, 1, 1};
  std::uint32_t threads = 1;
  std::uint32_t warps = 1;
  std::uint32_t shared_bytes = 0;
  std::uint32_t local_stride = 0;
  std::uint32_t local_frames = 0;  // of it, without what is for alloca
  std::uint32_t sm_count = 1;
  LanePolicy lane_policy = LanePolicy::kTogether;
  const std::byte* params = nullptr;  // 8 bytes more than params_bytes
  std::uint32_t params_bytes = 0;
  std::byte* lanes = nullptr;      // launch-wide special registers
  std::byte* workspace = nullptr;  // grid synchronization; kWorkspaceBytes
  MemoryView* memory = nullptr;
  KernelOutput* output = nullptr;
};
constexpr std::uint32_t kWorkspaceBytes = 64;

// What a fault needs to become a text; the grid keeps the first.
class FaultSink {
 public:
  virtual ~FaultSink() = default;
  virtual void Report(Fault fault) = 0;
  [[nodiscard]] virtual bool stopped() const = 0;
};

// A worker's side of warps: set before a warp runs.
struct Worker {
  static constexpr std::size_t kRecent = 8;
  MemoryView* memory = nullptr;
  std::vector<AccessCache> cache;  // by Inst::cache
  std::array<AccessCache, kRecent> recent;
  std::size_t next_recent = 0;
};

// Memory for frames of called functions: grows, and is reused from block to
// block.
class FrameArena {
 public:
  // 64-byte aligned; nullptr at the limit.
  std::byte* Take(std::size_t bytes);
  void Reset();

 private:
  static constexpr std::size_t kChunkBytes = 256u << 10;
  static constexpr std::size_t kMaxBytes = 512u << 20;
  struct Chunk {
    std::unique_ptr<std::byte[]> storage;
    std::byte* begin = nullptr;
    std::size_t bytes = 0;
  };
  std::vector<Chunk> chunks_;
  std::size_t current_ = 0;
  std::size_t used_ = 0;  // of the current chunk
  std::size_t total_ = 0;
};

struct BarrierState {
  std::uint32_t expected = 0;  // threads; 0: all of the block
  std::uint32_t waiting = 0;   // fragments that wait
  bool used = false;
  std::uint32_t popc = 0;
  bool all = true;
  bool any = false;
  std::array<std::uint32_t, kMaxWarps> arrived{};  // lanes, by warp
};

enum class BlockResult : std::uint8_t {
  kMore,     // the budget is used up, or every warp only waits for others
  kDone,     // every thread has exited
  kStopped,  // faulted, or the grid has been told to stop
};

struct Block {
  const LaunchState* launch = nullptr;
  FaultSink* faults = nullptr;
  std::uint64_t number = 0;
  std::array<std::uint32_t, 3> index{0, 0, 0};
  Warp* warps = nullptr;
  std::uint32_t warp_count = 0;
  std::uint32_t ready = 0;       // warps that can run, one bit each
  std::uint32_t unfinished = 0;  // warps with live lanes
  std::uint32_t next = 0;        // warp whose turn it is
  bool progress = false;         // something that others can see has happened
  bool only_spun = false;        // nothing of the kind in the last Run
  std::uint64_t executed = 0;    // warp instructions, about
  std::array<BarrierState, control::kBarriers + 1> barriers;
  FrameArena frames;

  // Runs until the budget is used up; takes off what it has used.
  BlockResult Run(Worker* worker, std::int64_t* budget);

 private:
  BlockResult RaiseDeadlock();
};

// The memory that a block takes; grows to what the largest kernel needs.
class BlockMemory {
 public:
  BlockMemory() = default;
  BlockMemory(const BlockMemory&) = delete;
  BlockMemory& operator=(const BlockMemory&) = delete;

  // Prepares `block` number `number` of the launch. False when there is no
  // memory.
  bool Start(const LaunchState& launch, FaultSink* faults,
             std::uint64_t number);
  [[nodiscard]] Block& block() { return block_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  // Bytes that a block of this launch needs.
  static std::size_t BytesFor(const LaunchState& launch);

  std::unique_ptr<BlockMemory> next;  // in a worker's pool

 private:
  bool Reserve(std::size_t bytes);
  void StartWarp(const LaunchState& launch, std::uint32_t index);
  void FillWarpLanes(const LaunchState& launch, std::uint32_t index,
                     std::byte* lanes);
  void FillBlockLanes(const LaunchState& launch, std::byte* lanes) const;

  struct FreeDeleter {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, FreeDeleter> storage_;
  std::size_t bytes_ = 0;
  std::vector<Warp> warps_;
  Block block_;
  // The launch shape for which the warps' own special registers are filled in.
  const Program* lanes_program_ = nullptr;
  std::array<std::uint32_t, 3> lanes_block_{0, 0, 0};
};

// ---- barriers.cc: what a warp's progress means to its block.

// Lanes of `warp` have exited: barriers may complete.
void CheckBarriers(Block* block, Warp* warp);
void ResetBarrier(BarrierState* barrier);
// How many threads wait where, for people.
std::string DescribeWaiting(const Block& block);

// ---- fragments.cc

// Gives the warp its next turn's worth of instructions and decides whether the
// fragment that has waited longest goes first (Warp::rotate).
void BeginTurn(Warp* warp);
// Chooses the fragment that runs next and makes it the running one; nullptr
// when none can run (state says why).
const Inst* Resume(Warp* warp, bool rotate);
// Puts the running fragment to the waiting ones.
void Suspend(Warp* warp, const Inst* at, FragmentState state);
// Makes fragments run whose collective is complete.
void CheckCollectives(Warp* warp);

// ---- memory_access.cc: for code that runs once in a while.

// threadIdx of a lane.
std::array<std::uint32_t, 3> ThreadIndex(const Warp& warp, std::uint32_t lane);

// The memory of an access by `lane` that must be aligned to `alignment` (a
// power of two); nullptr after a fault. GlobalAt needs no slot of the cache.
std::byte* SharedAt(Warp* warp, const Inst* at, std::uint32_t lane,
                    std::uint32_t address, std::uint32_t bytes,
                    std::uint32_t alignment);
std::byte* GlobalAt(Warp* warp, const Inst* at, std::uint32_t lane,
                    std::uint64_t address, std::uint32_t bytes,
                    std::uint32_t alignment);

// Copies from a generic address as `lane` sees it; false when it is not there.
bool ReadGeneric(Warp* warp, std::uint32_t lane, std::uint64_t address,
                 void* to, std::size_t bytes);
// A string that ends in NUL, at most `most` bytes.
bool ReadString(Warp* warp, std::uint32_t lane, std::uint64_t address,
                std::size_t most, std::string* out);

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_BLOCK_H_
