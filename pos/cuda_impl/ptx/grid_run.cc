// One launch: hands out blocks to workers, keeps the started ones that are not
// finished, ends when all have retired.
//
// A worker goes on with a started block before it starts a new one, unless the
// last one it ran did nothing but wait: then they take turns, so that a block
// that waits for one with a higher number sees it start.
#include <xmmintrin.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <deque>
#include <string>
#include <utility>

#include "pos/base/mutex.h"
#include "pos/cuda_impl/ptx/block.h"
#include "pos/cuda_impl/ptx/exec.h"

namespace pos::ptx {
namespace {

constexpr std::uint32_t kMaxThreads = 1024;
constexpr std::uint64_t kMaxGridX = 0x7fffffff;
constexpr std::uint32_t kMaxGridYZ = 65535;
// 227 KB on today's devices; whoever launches knows the device's limit.
constexpr std::uint64_t kMaxSharedBytes = 1u << 20;
constexpr std::uint32_t kMaxStackBytes = 512u << 10;
// alloca gets at least this much.
constexpr std::uint32_t kMinAllocaBytes = 8u << 10;
// Blocks that wait for each other are started until they take this much memory;
// cooperative launches, which may need all, have no limit.
constexpr std::uint64_t kMaxResidentBytes = 1ull << 30;

// What starting or resuming a block costs, in warp instructions.
constexpr std::int64_t kBlockCost = 4;

// Rounding to nearest, no exceptions, no flushing: what handlers rely on.
constexpr unsigned kMxcsr = 0x1f80;

class MxcsrScope {
 public:
  MxcsrScope() : saved_(_mm_getcsr()) { _mm_setcsr(kMxcsr); }
  ~MxcsrScope() { _mm_setcsr(saved_); }
  MxcsrScope(const MxcsrScope&) = delete;
  MxcsrScope& operator=(const MxcsrScope&) = delete;

 private:
  unsigned saved_;
};

}  // namespace

struct WorkerScratch::Rep {
  Worker worker;
  std::uint64_t run = 0;         // GridRun whose ranges the caches hold
  std::uint64_t generation = 0;  // of its MemoryView
  std::unique_ptr<BlockMemory> pool;
  std::size_t pooled_bytes = 0;

  std::unique_ptr<BlockMemory> Take();
  void Give(std::unique_ptr<BlockMemory> memory);
  void Trim();
  void Prepare(std::uint64_t run_number, const LaunchState& launch);

  static constexpr std::size_t kMaxPooledBytes = 64u << 20;
};

std::unique_ptr<BlockMemory> WorkerScratch::Rep::Take() {
  if (pool == nullptr) return std::make_unique<BlockMemory>();
  std::unique_ptr<BlockMemory> first = std::move(pool);
  pool = std::move(first->next);
  pooled_bytes -= first->bytes();
  return first;
}

void WorkerScratch::Rep::Give(std::unique_ptr<BlockMemory> memory) {
  if (pooled_bytes + memory->bytes() > kMaxPooledBytes) return;
  pooled_bytes += memory->bytes();
  memory->next = std::move(pool);
  pool = std::move(memory);
}

void WorkerScratch::Rep::Trim() {
  while (pool != nullptr) pool = std::move(pool->next);
  pooled_bytes = 0;
  worker.cache.clear();
  worker.cache.shrink_to_fit();
  run = 0;
}

void WorkerScratch::Rep::Prepare(std::uint64_t run_number,
                                 const LaunchState& launch) {
  const std::uint64_t now = launch.memory->Generation();
  if (run == run_number && generation == now) return;
  run = run_number;
  generation = now;
  worker.memory = launch.memory;
  // Below this limit lies no access of up to 4 KiB.
  constexpr AccessCache kNothing{~0ull, 4096};
  worker.cache.assign(launch.program->cache_slots, kNothing);
  worker.recent.fill({0, 0});
}

WorkerScratch::WorkerScratch() : rep_(std::make_unique<Rep>()) {}
WorkerScratch::~WorkerScratch() { rep_->Trim(); }
void WorkerScratch::Trim() { rep_->Trim(); }

struct GridRun::Rep final : public FaultSink {
  // Constant while the grid runs.
  LaunchState launch;
  std::vector<std::byte> params;
  std::vector<std::byte> lane_storage;
  alignas(64) std::array<std::byte, kWorkspaceBytes> workspace{};
  std::uint64_t number = 0;  // of this run, for the caches
  std::uint64_t total = 0;
  std::uint64_t max_started = 0;

  std::atomic<std::uint64_t> next{0};     // block to start
  std::atomic<std::uint64_t> retired{0};  // finished, or given up
  std::atomic<std::uint64_t> queued{0};   // size of `started`
  std::atomic<bool> stop{false};
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> executed{0};

  Mutex mu;
  std::deque<std::unique_ptr<BlockMemory>> started POS_GUARDED_BY(mu);
  bool has_fault POS_GUARDED_BY(mu) = false;
  Fault fault POS_GUARDED_BY(mu);
  bool prefer_new POS_GUARDED_BY(mu) = false;

  void Report(Fault reported) override POS_EXCLUDES(mu);
  [[nodiscard]] bool stopped() const override {
    return stop.load(std::memory_order_relaxed);
  }
  void FillLaunchLanes();
  std::unique_ptr<BlockMemory> TakeStarted() POS_EXCLUDES(mu);
  std::unique_ptr<BlockMemory> StartNext(WorkerScratch::Rep* scratch)
      POS_EXCLUDES(mu);
  std::unique_ptr<BlockMemory> TakeBlock(WorkerScratch::Rep* scratch)
      POS_EXCLUDES(mu);
  void PutBack(std::unique_ptr<BlockMemory> memory) POS_EXCLUDES(mu);
  // Counts blocks as retired; true for the call that retires the last.
  bool Retire(std::uint64_t count);
  bool GiveUp() POS_EXCLUDES(mu);
};

void GridRun::Rep::Report(Fault reported) {
  {
    const MutexLock lock(&mu);
    if (!has_fault) {
      has_fault = true;
      fault = std::move(reported);
    }
  }
  stop.store(true, std::memory_order_release);
}

void GridRun::Rep::FillLaunchLanes() {
  const auto workspace_at = reinterpret_cast<std::uint64_t>(workspace.data());
  std::byte* at = launch.lanes;
  for (const Special special : launch.program->launch_specials) {
    std::uint64_t value = 0;
    switch (special) {
      case Special::kNtidX:
        value = launch.block[0];
        break;
      case Special::kNtidY:
        value = launch.block[1];
        break;
      case Special::kNtidZ:
        value = launch.block[2];
        break;
      case Special::kNctaidX:
      case Special::kNclusteridX:
        value = launch.grid[0];
        break;
      case Special::kNctaidY:
      case Special::kNclusteridY:
        value = launch.grid[1];
        break;
      case Special::kNctaidZ:
      case Special::kNclusteridZ:
        value = launch.grid[2];
        break;
      case Special::kNwarpid:
        value = kMaxWarps * 2;
        break;
      case Special::kNsmid:
        value = launch.sm_count;
        break;
      case Special::kGridid:
        value = number;
        break;
      case Special::kDynamicShared:
        value = launch.shared_bytes - launch.program->static_shared_bytes;
        break;
      case Special::kTotalShared:
      case Special::kAggrShared:
        value = launch.shared_bytes;
        break;
      case Special::kEnvreg1:
        value = workspace_at >> 32;
        break;
      case Special::kEnvreg2:
        value = workspace_at & 0xffffffff;
        break;
      default:
        break;
    }
    const std::size_t width = SpecialBytes(special) == 8 ? 8 : 4;
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
      std::memcpy(at + lane * width, &value, width);
    }
    at += kLanes * width;
  }
}

std::unique_ptr<BlockMemory> GridRun::Rep::TakeStarted() {
  const MutexLock lock(&mu);
  if (started.empty()) return nullptr;
  std::unique_ptr<BlockMemory> first = std::move(started.front());
  started.pop_front();
  queued.store(started.size(), std::memory_order_relaxed);
  return first;
}

// nullptr when all blocks have been started or no more may be.
std::unique_ptr<BlockMemory> GridRun::Rep::StartNext(
    WorkerScratch::Rep* scratch) {
  if (queued.load(std::memory_order_relaxed) >= max_started) return nullptr;
  if (next.load(std::memory_order_relaxed) >= total) return nullptr;
  const std::uint64_t block = next.fetch_add(1, std::memory_order_relaxed);
  if (block >= total) return nullptr;
  std::unique_ptr<BlockMemory> memory = scratch->Take();
  if (memory->Start(launch, this, block)) return memory;
  Fault out_of_memory;
  out_of_memory.error = kErrorLaunchFailed;
  out_of_memory.text = "kernel " + launch.kernel->entry().name +
                       ": no host memory for a block of " +
                       std::to_string(BlockMemory::BytesFor(launch)) + " bytes";
  Report(std::move(out_of_memory));
  return memory;  // stops at once
}

std::unique_ptr<BlockMemory> GridRun::Rep::TakeBlock(
    WorkerScratch::Rep* scratch) {
  bool new_first = queued.load(std::memory_order_relaxed) == 0;
  if (!new_first) {
    const MutexLock lock(&mu);
    new_first = prefer_new;
    prefer_new = false;
  }
  std::unique_ptr<BlockMemory> found;
  if (new_first) found = StartNext(scratch);
  if (found == nullptr) found = TakeStarted();
  if (found == nullptr && !new_first) found = StartNext(scratch);
  return found;
}

void GridRun::Rep::PutBack(std::unique_ptr<BlockMemory> memory) {
  const MutexLock lock(&mu);
  if (memory->block().only_spun) prefer_new = true;
  started.push_back(std::move(memory));
  queued.store(started.size(), std::memory_order_relaxed);
}

bool GridRun::Rep::Retire(std::uint64_t count) {
  const std::uint64_t before =
      retired.fetch_add(count, std::memory_order_acq_rel);
  if (count == 0 || before + count != total) return false;
  done.store(true, std::memory_order_release);
  return true;
}

// After a stop: retires what nobody runs.
bool GridRun::Rep::GiveUp() {
  std::deque<std::unique_ptr<BlockMemory>> given_up;
  {
    const MutexLock lock(&mu);
    given_up.swap(started);
    queued.store(0, std::memory_order_relaxed);
  }
  std::uint64_t count = given_up.size();
  const std::uint64_t first = next.exchange(total, std::memory_order_relaxed);
  if (first < total) count += total - first;
  return Retire(count);
}

GridRun::GridRun(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
GridRun::~GridRun() = default;

namespace {

Status CheckLaunch(const Kernel& kernel, const LaunchParams& launch) {
  const Entry& entry = kernel.entry();
  const auto& g = launch.grid;
  const auto& b = launch.block;
  const auto bad = [&entry](const std::string& what) {
    return Invalid("launch of kernel " + entry.name + ": " + what);
  };
  if (g[0] == 0 || g[1] == 0 || g[2] == 0 || g[0] > kMaxGridX ||
      g[1] > kMaxGridYZ || g[2] > kMaxGridYZ) {
    return bad("a grid of " + std::to_string(g[0]) + "x" +
               std::to_string(g[1]) + "x" + std::to_string(g[2]) + " blocks");
  }
  const std::uint64_t threads = std::uint64_t{b[0]} * b[1] * b[2];
  if (b[0] > kMaxThreads || b[1] > kMaxThreads || b[2] > kMaxThreads ||
      threads == 0 || threads > entry.max_threads_per_block) {
    return bad("a block of " + std::to_string(b[0]) + "x" +
               std::to_string(b[1]) + "x" + std::to_string(b[2]) +
               " threads; the kernel allows " +
               std::to_string(entry.max_threads_per_block));
  }
  if (entry.required_block[0] != 0 &&
      !std::equal(b.begin(), b.end(), std::begin(entry.required_block))) {
    return bad("another block shape than .reqntid says");
  }
  if (std::uint64_t{kernel.program().static_shared_bytes} +
          launch.dynamic_shared_bytes >
      kMaxSharedBytes) {
    return bad("more shared memory than any device has");
  }
  if (launch.params.size() < entry.params_bytes) {
    return bad("it takes " + std::to_string(entry.params_bytes) +
               " bytes of parameters, not " +
               std::to_string(launch.params.size()));
  }
  if (launch.stack_bytes > kMaxStackBytes) return bad("a stack that large");
  return OkStatus();
}

// .local of one thread, multiples of 16: for the frames of functions, and with
// what alloca takes.
void LayOutLocal(const Program& program, std::uint32_t stack_bytes,
                 LaunchState* launch) {
  const auto round = [](std::uint64_t bytes) {
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>((bytes + 15) & ~std::uint64_t{15}, 1u << 26));
  };
  launch->local_frames =
      round(program.local_bytes + (program.recursive ? stack_bytes : 0));
  launch->local_stride =
      round(launch->local_frames +
            (program.takes_stack ? std::max(stack_bytes, kMinAllocaBytes) : 0));
}

std::uint64_t NextRunNumber() {
  static std::atomic<std::uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace

Result<std::unique_ptr<GridRun>> GridRun::Create(const Kernel* kernel,
                                                 const LaunchParams& launch,
                                                 MemoryView* memory,
                                                 KernelOutput* output) {
  POS_RETURN_IF_ERROR(CheckLaunch(*kernel, launch));
  const Program& program = kernel->program();
  auto rep = std::make_unique<Rep>();
  LaunchState& state = rep->launch;
  state.program = &program;
  state.kernel = kernel;
  state.grid = launch.grid;
  state.block = launch.block;
  state.threads = launch.block[0] * launch.block[1] * launch.block[2];
  state.warps = (state.threads + kLanes - 1) / kLanes;
  state.shared_bytes =
      program.static_shared_bytes + launch.dynamic_shared_bytes;
  LayOutLocal(program, launch.stack_bytes, &state);
  state.sm_count = std::max(1u, launch.sm_count);
  state.lane_policy = launch.lanes;
  state.memory = memory;
  state.output = output;
  state.params_bytes = kernel->entry().params_bytes;
  rep->params.resize(state.params_bytes + 64);
  std::copy_n(launch.params.begin(), state.params_bytes, rep->params.begin());
  state.params = rep->params.data();
  rep->lane_storage.resize(program.launch_bytes + 64);
  void* aligned = rep->lane_storage.data();
  std::size_t space = rep->lane_storage.size();
  state.lanes = static_cast<std::byte*>(
      std::align(64, program.launch_bytes, aligned, space));
  state.workspace = rep->workspace.data();
  rep->number = NextRunNumber();
  rep->total = std::uint64_t{launch.grid[0]} * launch.grid[1] * launch.grid[2];
  rep->max_started =
      launch.cooperative
          ? rep->total
          : std::max<std::uint64_t>(
                256, kMaxResidentBytes / (BlockMemory::BytesFor(state) + 1));
  rep->FillLaunchLanes();
  return std::unique_ptr<GridRun>(new GridRun(std::move(rep)));
}

GridRun::Step GridRun::Run(WorkerScratch* scratch, std::uint64_t budget) {
  WorkerScratch::Rep* const worker = scratch->rep();
  const MxcsrScope mxcsr;
  worker->Prepare(rep_->number, rep_->launch);
  auto left = static_cast<std::int64_t>(
      std::min<std::uint64_t>(std::max<std::uint64_t>(budget, 1), 1ull << 60));
  while (left > 0) {
    if (rep_->stopped()) {
      return rep_->GiveUp() ? Step::kFinished : Step::kNothingForYou;
    }
    std::unique_ptr<BlockMemory> memory = rep_->TakeBlock(worker);
    if (memory == nullptr) return Step::kNothingForYou;
    if (rep_->stopped()) {
      if (rep_->Retire(1)) return Step::kFinished;
      continue;
    }
    Block& block = memory->block();
    left -= kBlockCost;
    const BlockResult result = block.Run(&worker->worker, &left);
    if (result == BlockResult::kMore) {
      rep_->PutBack(std::move(memory));
      continue;
    }
    rep_->executed.fetch_add(block.executed, std::memory_order_relaxed);
    if (result == BlockResult::kDone) worker->Give(std::move(memory));
    if (rep_->Retire(1)) return Step::kFinished;
  }
  return rep_->done.load(std::memory_order_acquire) ? Step::kNothingForYou
                                                    : Step::kMore;
}

bool GridRun::HasWork() const {
  if (rep_->done.load(std::memory_order_acquire)) return false;
  return rep_->stopped() || rep_->queued.load(std::memory_order_relaxed) != 0 ||
         rep_->next.load(std::memory_order_relaxed) < rep_->total;
}

bool GridRun::finished() const {
  return rep_->done.load(std::memory_order_acquire);
}

void GridRun::Cancel() { rep_->stop.store(true, std::memory_order_release); }

const Fault* GridRun::fault() const {
  const MutexLock lock(&rep_->mu);
  return rep_->has_fault ? &rep_->fault : nullptr;
}

std::uint64_t GridRun::instructions() const {
  return rep_->executed.load(std::memory_order_relaxed);
}

}  // namespace pos::ptx
