// The worker's half of the CUDA calls: what they do on the device, and how
// their handles are made again.
//
// Errors of execution come back with completions; the first one poisons the
// context that it happened in, and the client is told at its next call
// (sticky). An error that a call without a reply gives when it is handed to
// the device is logged and reported by the next call that synchronizes.
//
// Threads: the worker's. Save and Restore: while the pipeline is paused.
#ifndef POS_CUDA_IMPL_WORKER_CUDA_EXECUTOR_H_
#define POS_CUDA_IMPL_WORKER_CUDA_EXECUTOR_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "pos/call/client_port.h"
#include "pos/cuda_impl/api/calls.h"
#include "pos/cuda_impl/handles/objects.h"
#include "pos/cuda_impl/parser/session_state.h"
#include "pos/cuda_impl/worker/call_access.h"
#include "pos/cuda_impl/worker/code_access.h"
#include "pos/cuda_impl/worker/host_window.h"
#include "pos/cuda_impl/worker/worker_memory.h"
#include "pos/device/device.h"
#include "pos/device/output_fifo.h"
#include "pos/parser/parser.h"
#include "pos/worker/memory_watch.h"
#include "pos/worker/worker.h"

namespace pos::cuda {

class CudaExecutor : public ApiExecutor {
 public:
  // `dropped_error`: where the parser leaves errors of calls without a reply.
  CudaExecutor(const SessionState* state, ClientPort* port,
               NoticeBoard* notices, CompletionSink* sink, HostWindow* host,
               std::atomic<std::int32_t>* dropped_error);
  // Ends all device work and frees what is left.
  ~CudaExecutor() override;
  CudaExecutor(const CudaExecutor&) = delete;
  CudaExecutor& operator=(const CudaExecutor&) = delete;

  // kBlocked when the watch says so.
  Outcome Execute(ApiContext* context) override;
  Outcome Complete(ApiContext* context, DeviceError error) override;

  // Asked before every call that may touch device memory; nullptr: nobody is.
  // While paused.
  void SetWatch(MemoryWatch* watch) { watch_ = watch; }

  // Stops running kernels; what was queued fails. Any thread.
  void CancelAll() POS_EXCLUDES(contexts_mu_);

  [[nodiscard]] const WorkerMemory& memory() const { return memory_; }
  // Pinned ranges as executed: address → bytes.
  [[nodiscard]] const std::map<std::uint64_t, std::uint64_t>& host_blocks()
      const {
    return host_blocks_;
  }

  // Why the session cannot be saved now, if it cannot. While paused.
  [[nodiscard]] Status CheckSavable() const;

  // Device memory that the worker accounts for: variables, and memory without
  // addresses. While paused.
  [[nodiscard]] std::uint64_t TakenBytes(int device) const;

  // The worker's share of an image: memory tables, event states, errors.
  void Save(const HandleGraph& graph, ByteWriter* out) const;
  // Into a fresh executor, after SessionState::Load: maps memory (content
  // follows separately) and makes every materialized handle again.
  Status Restore(HandleGraph* graph, ByteReader* in);

 private:
#define POS_CALL(id, name, reply, payload, args, out) \
  Outcome Exec##name(ApiContext* context, const name##Args& args_in);
#include "pos/cuda_impl/api/calls.def"
#undef POS_CALL

  // Whether the watch lets the call pass.
  [[nodiscard]] bool MayGo(const ApiContext& context);

  // Creation, for the first time and again from a recipe.
  Status MakeContext(Handle* handle, Handle* stream, const CtxCreateArgs& args);
  Status MakeStream(Handle* handle, const StreamCreateArgs& args);
  Status MakeEvent(Handle* handle, const EventCreateArgs& args);
  // `recorded`: where its variables were, in a replay; else null.
  Status MakeModule(Handle* handle, const std::vector<std::uint64_t>* recorded,
                    DeviceError* error);
  Status TakeVariables(ModuleObject* object, const Handle* owner,
                       const std::vector<std::uint64_t>* recorded);
  Status MakePhysical(Handle* handle, const PhysicalCreateArgs& args);
  void DropPhysical(Handle* handle);
  [[nodiscard]] std::shared_ptr<PhysicalMemory> FindPhysical(HandleId id) const;
  Status MakeFunction(Handle* handle, std::string_view name);
  Status Replay(Handle* handle);
  Status ReplayContext(Handle* handle);
  // 0 and what the limit is now, or the API's error.
  DeviceError SetLimit(Handle* handle, const CtxSetLimitArgs& args,
                       std::uint64_t* in_effect);
  DeviceError SetHeapLimit(Handle* handle, std::uint64_t value,
                           std::uint64_t* in_effect);
  Status ReplayFunction(Handle* handle);
  void DestroyContext(Handle* handle, std::span<Handle* const> family);
  void DestroyModule(Handle* handle, std::span<Handle* const> functions);
  void ReleaseRange(std::uint64_t address);
  void ReleaseHost(std::uint64_t address);
  void DropHostMemory();

  Outcome Created(ApiContext* context, Handle* handle, const Status& status,
                  DeviceError error);
  // `context`'s token comes back when every context of `device` (-1: of all)
  // is idle; kDone when there is none.
  Outcome WhenIdle(ApiContext* context, int device);
  Outcome Fail(ApiContext* context, DeviceError error);
  // Tells the client about faults; for calls that report them.
  void CheckFaults();
  [[nodiscard]] DeviceError TakeDropped();
  void Made(Handle* handle);
  void Gone(Handle* handle);

  const SessionState* const state_;
  ClientPort* const port_;
  NoticeBoard* const notices_;
  CompletionSink* const sink_;
  HostWindow* const host_;
  std::atomic<std::int32_t>* const dropped_error_;
  // What kernels print. Outlives the contexts, which the destructor ends.
  OutputFifo output_;
  WorkerMemory memory_;
  access::AccessCache code_accesses_;
  CallAccessFinder accesses_;
  MemoryWatch* watch_ = nullptr;
  std::map<std::uint64_t, std::uint64_t> host_blocks_;
  // Shared memory of the client's own: address → bytes.
  std::map<std::uint64_t, std::uint64_t> registered_;
  std::map<HandleId, Handle*> physicals_;  // memory without addresses
  // Where the variables of modules lie: one allocator a device.
  std::vector<BlockAllocator> variables_;
  // Living contexts, in order of creation. Written by the worker under the
  // lock; the lock is for CancelAll.
  Mutex contexts_mu_;
  std::vector<Handle*> contexts_;
  DeviceError sticky_ = 0;
  // Context for which the device could not back memory that was promised; 0
  // when there is none. Its end takes that error away.
  HandleId broken_ = 0;
  // While a state is being restored: what it says of contexts, by handle.
  struct SavedContext {
    std::uint64_t heap = 0;
    std::uint64_t heap_bytes = 0;
    bool heap_used = false;
    bool output_used = false;
  };
  std::map<HandleId, SavedContext> saved_contexts_;
  // ModuleUnload calls that wait for the device.
  std::vector<ApiContext*> unloading_;
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_WORKER_CUDA_EXECUTOR_H_
