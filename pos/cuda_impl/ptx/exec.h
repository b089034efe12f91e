// Runs the kernels of a parsed module on the processor's vector units.
//
//   Module ──> LoadedModule ── GetKernel ──> Kernel
//                                              │
//   device's worker threads ── GridRun::Run ───┘  (one GridRun per launch)
//
// Model: a block's threads run as warps of 32; one virtual register of a warp
// is 32 lanes side by side, so one decoded instruction is a few vector
// instructions. Lanes that take different ways become fragments that run in
// turn and merge where they meet. Every warp, block and grid gets its turn in
// bounded time, so spinning on another lane, warp, started block, kernel or the
// host ends when the other side has done its part.
//
// Memory: a device address is a host address of this process. The device says
// which ranges are allocations (MemoryView); an access outside all of them
// faults without being made. Shared, local and parameter memory have generic
// addresses in windows (kSharedWindow …) that no allocation may overlap.
//
// Threads: LoadedModule, Kernel: any. GridRun: as its comment says.
// Ownership: a LoadedModule outlives its kernels' runs; a GridRun refers to
//   its Kernel, MemoryView and KernelOutput and copies everything else.
// Errors: API result codes (CUresult) in Fault::error.
#ifndef POS_CUDA_IMPL_PTX_EXEC_H_
#define POS_CUDA_IMPL_PTX_EXEC_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pos/base/status.h"
#include "pos/cuda_impl/ptx/exec_layout.h"
#include "pos/cuda_impl/ptx/module.h"

namespace pos::ptx {

// The instruction-set level that the interpreter's own code was compiled for.
// All levels give the same bits.
enum class IsaLevel : std::uint8_t { kBaseline, kV3, kV4 };
// The best that this processor and this build (levels.h) have; the environment
// variable POS_PTX_ISA (x86-64, x86-64-v3, x86-64-v4) can lower it.
[[nodiscard]] IsaLevel BestIsaLevel();
[[nodiscard]] std::string_view IsaLevelName(IsaLevel level);

// What kernels see of device memory. Implemented by the device.
//
// Threads: any, at once, while kernels run.
class MemoryView {
 public:
  struct Range {
    std::uint64_t base = 0;
    std::uint64_t limit = 0;  // one past the end; limit == base: none
  };
  virtual ~MemoryView() = default;

  // The allocation (device memory, module variable or mapped host memory) that
  // contains `address`. Must not block.
  virtual Range Find(std::uint64_t address) = 0;

  // Changes whenever a range that Find may have returned goes away. Run reads
  // it once when it starts and drops what it remembers when it has changed; so
  // a device that unmaps memory first changes the generation and then waits
  // until every Run call in progress has returned.
  virtual std::uint64_t Generation() = 0;

  // Device-side malloc and free. Malloc returns 0 when the heap is full; what
  // it returned is found by Find. Free(0) does nothing; false: not a pointer
  // that Malloc returned.
  virtual std::uint64_t Malloc(std::uint64_t bytes) = 0;
  virtual bool Free(std::uint64_t address) = 0;
};

// Text that a kernel printed.
class KernelOutput {
 public:
  virtual ~KernelOutput() = default;
  // Any worker thread; must not block. One call per printf of one thread.
  virtual void Print(std::string_view text) = 0;
  // A failed assertion: one call per warp.
  virtual void PrintFailure(std::string_view text) = 0;
};

struct Program;  // program.h: a kernel's decoded instructions

// One kernel, decoded. Immutable.
class Kernel {
 public:
  [[nodiscard]] const Entry& entry() const { return *entry_; }
  [[nodiscard]] const Program& program() const { return *program_; }

 private:
  friend class LoadedModule;
  Kernel(const Entry* entry, std::unique_ptr<const Program> program);

 public:
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

 private:
  const Entry* entry_;
  std::unique_ptr<const Program> program_;
};

// A module whose variables have addresses.
class LoadedModule {
 public:
  // `variable_addresses[i]` is where module->variables()[i] lies; 0 for an
  // external one that nobody provided (kernels that use it cannot run).
  LoadedModule(std::shared_ptr<const Module> module,
               std::vector<std::uint64_t> variable_addresses,
               IsaLevel level = BestIsaLevel());
  ~LoadedModule();
  LoadedModule(const LoadedModule&) = delete;
  LoadedModule& operator=(const LoadedModule&) = delete;

  [[nodiscard]] const Module& module() const;

  // The first bytes of what variable `index` holds after loading, addresses
  // filled in; the rest is zeros.
  [[nodiscard]] std::vector<std::byte> InitialBytes(std::size_t index) const;

  // The kernel `name`, decoded at the first call. kNoSuch when the module has
  // none; kIncompatible, naming instruction and line, when it cannot run.
  // Any thread; the first call for a name may take milliseconds.
  Result<const Kernel*> GetKernel(std::string_view name);

 private:
  struct Rep;
  std::unique_ptr<Rep> rep_;
};

// Per-worker-thread memory that outlives launches: pooled block state and the
// cache of allocations. One thread at a time.
class WorkerScratch {
 public:
  WorkerScratch();
  ~WorkerScratch();
  WorkerScratch(const WorkerScratch&) = delete;
  WorkerScratch& operator=(const WorkerScratch&) = delete;

  // Gives pooled memory back to the system, for a worker that goes idle.
  void Trim();

  struct Rep;
  [[nodiscard]] Rep* rep() { return rep_.get(); }

 private:
  std::unique_ptr<Rep> rep_;
};

// How the lanes of a warp run. The results are the same: tests compare them,
// and whoever doubts a result can.
enum class LanePolicy : std::uint8_t {
  kTogether,  // as many at once as are at the same instruction
  kMasked,    // the same, by the handlers for warps that are not whole
  kApart,     // one at a time; they meet only where the program makes them
};
// kTogether, or what the environment's POS_PTX_LANES says: masked, apart.
[[nodiscard]] LanePolicy DefaultLanePolicy();

struct LaunchParams {
  std::array<std::uint32_t, 3> grid{1, 1, 1};   // blocks
  std::array<std::uint32_t, 3> block{1, 1, 1};  // threads
  std::uint32_t dynamic_shared_bytes = 0;
  // Entry::params_bytes bytes (more is ignored); copied by Create.
  std::span<const std::byte> params;
  bool cooperative = false;  // start all blocks (grid sync)
  // cuCtxSetLimit(CU_LIMIT_STACK_SIZE): what recursion may use, per thread,
  // beyond the deepest chain of calls without a circle: .local variables and
  // 16 bytes a call.
  std::uint32_t stack_bytes = 1024;
  std::uint32_t sm_count = 132;  // for %nsmid and %smid
  LanePolicy lanes = DefaultLanePolicy();
};

// Where and why a kernel stopped.
struct Fault {
  std::int32_t error = 0;     // CUresult: 700 illegal address, 716 misaligned,
                              // 714 stack, 715 illegal instruction, 717, 718
                              // invalid pc, 719 launch failed, 710 assert
  std::uint64_t address = 0;  // of the access, where there is one
  std::string text;  // kernel, block, thread, instruction, line of the PTX
};

// One launch.
//
// Threads: any number of workers call Run at once; Cancel from any thread.
//   Create and destruction: one thread, and no Run call in progress. fault()
//   once finished() is true.
// Blocking: Run never waits: not for other workers, not for the device. It
//   takes about `budget` warp instructions of time, whatever the kernel does.
class GridRun {
 public:
  enum class Step : std::uint8_t {
    kMore,           // call again: there is work for this worker
    kNothingForYou,  // all that is left is being run by other workers, or the
                     // grid has finished
    kFinished,       // this call ended the grid; exactly one call gets it
  };

  // Checks the launch: kInvalid for sizes that the kernel cannot have. Cheap:
  // block state is made when blocks start.
  static Result<std::unique_ptr<GridRun>> Create(const Kernel* kernel,
                                                 const LaunchParams& launch,
                                                 MemoryView* memory,
                                                 KernelOutput* output);
  ~GridRun();
  GridRun(const GridRun&) = delete;
  GridRun& operator=(const GridRun&) = delete;

  Step Run(WorkerScratch* scratch, std::uint64_t budget);

  // Whether Run would find a block to work on now (a hint for workers that got
  // kNothingForYou).
  [[nodiscard]] bool HasWork() const;
  // Every block has retired, faulted or been cancelled.
  [[nodiscard]] bool finished() const;

  // The grid ends without running further: Run calls in progress return within
  // one quantum, and the next call (or the last one) ends the grid. Returns at
  // once.
  void Cancel();

  // nullptr: no fault. The first one when several threads fault.
  [[nodiscard]] const Fault* fault() const;
  // Warp instructions executed so far, about.
  [[nodiscard]] std::uint64_t instructions() const;

  struct Rep;

 private:
  explicit GridRun(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_EXEC_H_
