// What contexts, streams and events of one cuda device share: the driver's
// context, the order in which submitted work is waited for, and the thread that
// does the waiting.
//
// Every piece of work leaves an event of the driver behind it (a Mark). A
// Pending is what is reported when its marks have passed. Lanes hold the
// Pendings of one stream, whose marks pass in order, so that only the first of
// a lane is looked at.
//
// Threads: the worker submits; the completer thread looks, reports, and
// destroys
//   contexts that faulted or were cancelled. ContextCore::use_mu is held across
//   the driver's calls by whoever uses the driver's context, so that nobody
//   destroys it meanwhile; it is the worker's but for that moment. Order:
//   use_mu before Completer's mutex.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_CORE_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_CORE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/cuda_impl/device_cuda/driver.h"
#include "pos/cuda_impl/device_cuda/driver_output.h"
#include "pos/cuda_impl/device_cuda/pinned_pool.h"
#include "pos/device/device.h"

namespace pos::cuda_device {

// Makes `context` the calling thread's current one. `key`: never reused, unlike
// the driver's handles.
CUresult MakeCurrent(const Driver& driver, CUcontext context,
                     std::uint64_t key);

// The driver has made another one current: the next MakeCurrent is no no-op.
void ForgetCurrent();

class ContextCore;

// One recording of an event.
struct Mark {
  Mark(std::shared_ptr<ContextCore> core_in, CUevent event_in, bool timed_in)
      : core(std::move(core_in)), event(event_in), timed(timed_in) {}
  ~Mark();  // the event goes back to its context
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;

  const std::shared_ptr<ContextCore> core;
  const CUevent event;
  const bool timed;
  std::atomic<bool> passed{false};
};
using MarkPtr = std::shared_ptr<Mark>;

struct Pending {
  std::uint64_t token = 0;
  std::vector<MarkPtr> marks;  // all have to pass
  std::uint64_t order = 0;     // of submission
  // What the work turns out to have failed with when its turn comes; ends the
  // context.
  DeviceError fault = 0;
  DeviceError refused = 0;  // reported instead of success
  // Held until then; `copy_to` gets its bytes.
  bool prints = false;  // a kernel that may print, counted in `printing`
  PinnedBuffer buffer;
  void* copy_to = nullptr;
  std::uint64_t copy_bytes = 0;
};

struct Lane {
  std::deque<Pending> pending;  // Completer's mutex
  // The worker's.
  MarkPtr last;  // of the latest work
};

class Completer;

class ContextCore : public std::enable_shared_from_this<ContextCore> {
 public:
  ContextCore(const Driver& driver_in, Completer* completer_in,
              CUcontext context_in, CompletionSink* sink_in);

  // While the lock is held and this returns true, the driver's context is there
  // and current.
  [[nodiscard]] bool Enter() POS_REQUIRES(use_mu);

  // For the completer's thread, which alone destroys the context.
  CUresult EnterFromCompleter() POS_NO_THREAD_SAFETY {
    return MakeCurrent(driver, context, key);
  }
  // An event to record; nullptr when the driver gives none, for `*result`.
  MarkPtr NewMark(bool timed, CUresult* result) POS_REQUIRES(use_mu);
  // What to do about an error of the driver when work was submitted. True: it
  // ended the context; then the work's completion reports it.
  bool EndsContext(CUresult result);

  const Driver& driver;
  Completer* const completer;
  CompletionSink* const sink;
  const std::uint64_t key;
  // Not 0: the context's sticky error. The completer ends what runs and reports
  // everything pending, and all that is submitted later, with it.
  std::atomic<DeviceError> sticky{0};

  // Launches of kernels that may print which are not reported yet, and where
  // their text comes out: null until code is loaded that prints, then it stays.
  std::atomic<std::int32_t> printing{0};
  std::atomic<DriverOutput*> output{nullptr};
  std::shared_ptr<DriverOutput> output_owner;  // the worker's

  Mutex use_mu;
  CUcontext context POS_GUARDED_BY(use_mu);  // null: destroyed

  // Completer's mutex.
  std::vector<std::shared_ptr<Lane>> lanes;
  std::deque<Pending> loose;      // those of no lane
  std::vector<CUmodule> retired;  // to be unloaded when nothing runs
  bool destroyed = false;         // the driver's context
  bool closing = false;           // its owner waits for its end
  bool ended = false;             // and all of it is reported

 private:
  friend struct Mark;
  Mutex events_mu_;
  std::vector<CUevent> events_[2] POS_GUARDED_BY(events_mu_);  // [timed]
};

// One thread a device.
class Completer {
 public:
  explicit Completer(const Driver& driver) : driver_(driver) {}
  ~Completer();
  void Start();

  void Add(const std::shared_ptr<ContextCore>& core) POS_EXCLUDES(mu_);
  // Ends the context: what is pending completes with `error`. Returns at once.
  void End(ContextCore* core, DeviceError error) POS_EXCLUDES(mu_);
  // Until it has ended.
  void AwaitEnd(ContextCore* core) POS_EXCLUDES(mu_);
  std::shared_ptr<Lane> NewLane(ContextCore* core) POS_EXCLUDES(mu_);
  void DropLane(ContextCore* core, Lane* lane) POS_EXCLUDES(mu_);
  // `lane`: null for what belongs to none.
  void Submit(ContextCore* core, Lane* lane, Pending pending) POS_EXCLUDES(mu_);
  void Retire(ContextCore* core, CUmodule module) POS_EXCLUDES(mu_);

 private:
  struct Done {
    std::shared_ptr<ContextCore> core;
    Pending pending;
  };
  enum class Passed { kNo, kYes, kFault };

  void Run();
  // Looks at what is oldest and was submitted before `before`.
  void Pass(std::vector<Done>* done, std::uint64_t before);
  void PassLane(const std::shared_ptr<ContextCore>& core, Lane* lane,
                std::vector<Done>* done, std::uint64_t before);
  void PassLoose(const std::shared_ptr<ContextCore>& core,
                 std::vector<Done>* done);
  Passed AllPassed(ContextCore* core, std::vector<MarkPtr>* marks);
  void Report(std::vector<Done>* done);
  // What kernels have printed goes to the sink before anything is reported that
  // came after.
  void FlushOutput(const std::vector<Done>& done);
  void Finish(const std::shared_ptr<ContextCore>& core);
  void UnloadRetired(ContextCore* core);
  [[nodiscard]] bool HasWork() const POS_REQUIRES(mu_);
  [[nodiscard]] static bool HasPending(const ContextCore& core);

  const Driver& driver_;
  mutable Mutex mu_;
  CondVar changed_;
  std::vector<std::shared_ptr<ContextCore>> cores_ POS_GUARDED_BY(mu_);
  std::uint64_t next_order_ POS_GUARDED_BY(mu_) = 1;
  bool stopping_ POS_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_CORE_H_
