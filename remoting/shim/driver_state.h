// The driver's state that lives in the client: devices, contexts, handles with
// what is known about them, allocations. Local, so that most of the API costs
// no round trip, and saved with the process image, so that none of it has to be
// saved by anybody else.
//
// Threads: any. Nothing here is destroyed before the process ends.
#ifndef REMOTING_SHIM_DRIVER_STATE_H_
#define REMOTING_SHIM_DRIVER_STATE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/mutex.h"
#include "pos/cuda_impl/api/calls.h"
#include "remoting/shim/client.h"
#include "remoting/shim/driver.h"
#include "remoting/shim/id_table.h"
#include "remoting/shim/thread_state.h"

namespace pos::shim {

struct DeviceState {
  std::string name;
  std::array<std::uint8_t, 16> uuid{};
  std::uint64_t memory_bytes = 0;
  std::vector<std::int32_t> attributes;  // by CUdevice_attribute
  [[nodiscard]] std::int32_t Attribute(std::int32_t a) const {
    return a > 0 && static_cast<std::size_t>(a) < attributes.size()
               ? attributes[static_cast<std::size_t>(a)]
               : 0;
  }
};

// A CUcontext. The handle is this process's own and stays the same when a
// primary context is reset and used again; `runner_id` then changes.
struct Context {
  std::atomic<std::uint64_t> id{0};
  int device = 0;
  bool primary = false;
  std::uint64_t unique_id = 0;              // never reused in this process
  std::atomic<std::uint64_t> runner_id{0};  // 0: not active
  std::atomic<std::uint64_t> default_stream{0};
  // Counts activations; distinguishes what belonged to an earlier one.
  std::atomic<std::uint64_t> generation{0};
  std::atomic<std::uint32_t> flags{0};
  // A kernel that may print was launched since the last activation. Then calls
  // wait for it that CUDA makes wait, though nothing but text could tell.
  std::atomic<bool> prints{false};

  Mutex mu;
  std::uint32_t retained POS_GUARDED_BY(mu) = 0;  // primary only
  std::map<std::int32_t, std::uint64_t> limits POS_GUARDED_BY(mu);
};

struct Stream {
  std::atomic<std::uint64_t> id{0};
  Context* context = nullptr;
  std::uint32_t flags = 0;
  std::int32_t priority = 0;
  std::uint64_t unique_id = 0;
};

struct Event {
  std::atomic<std::uint64_t> id{0};
  Context* context = nullptr;
  std::uint32_t flags = 0;
};

// What the client knows of a kernel in a context; see ModuleFunction.
struct Function {
  std::atomic<std::uint64_t> id{0};
  Context* context = nullptr;
  std::uint64_t module = 0;
  std::uint64_t kernel = 0;  // handle of the kernel it was made for, or 0
  std::string name;
  std::vector<cuda::FunctionParam> params;
  std::uint32_t params_bytes = 0;
  std::int32_t launch_error = 0;
  bool prints = false;                              // may print
  std::map<std::int32_t, std::int32_t> attributes;  // guarded by driver's lock
  // What a launch checks, as plain words.
  std::atomic<std::uint32_t> max_threads{1024};
  std::atomic<std::uint32_t> max_dynamic_shared{48 * 1024};
};

struct Module {
  std::atomic<std::uint64_t> id{0};
  Context* context = nullptr;
  std::uint64_t library = 0;  // the library it was loaded for, or 0
  std::uint64_t blob = 0;     // to be destroyed with it; 0: the library's
  std::map<std::string, std::uint64_t> functions;  // driver's lock
};

// CUlibrary: a code image, loaded into contexts when it is used there.
struct Library {
  std::atomic<std::uint64_t> id{0};
  std::uint64_t blob = 0;
  // By (context, generation) of activation.
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint64_t> modules;
  std::map<std::string, std::uint64_t> kernels;
};

// CUkernel: a kernel of a library, in whatever context.
struct Kernel {
  std::atomic<std::uint64_t> id{0};
  std::uint64_t library = 0;
  std::string name;
  // The function in the context used last, and that context's activation: the
  // launch path looks no further.
  std::atomic<std::uint64_t> last_function{0};
  std::atomic<std::uint64_t> last_generation{0};
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint64_t> functions;
};

// A range that pointers of the program may point into.
struct Range {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  enum Kind {
    kDevice,
    kAsync,
    kHost,
    kVariable,
    kMapped,
    kRegistered
  } kind = kDevice;
  Context* context = nullptr;
  int device = 0;
  std::uint32_t flags = 0;         // cuMemHostAlloc's
  bool managed = false;            // kHost that cuMemAllocManaged made
  std::uint64_t mapped_bytes = 0;  // host: what was mapped
  [[nodiscard]] bool IsHost() const {
    return kind == kHost || kind == kRegistered;
  }
  std::uint64_t buffer_id = 0;
  std::uint64_t pool = 0;
};

// A CUmemGenericAllocationHandle: device memory without an address.
struct Physical {
  std::atomic<std::uint64_t> id{0};
  int device = 0;
  std::uint64_t bytes = 0;
  std::uint64_t runner_id = 0;
  std::uint32_t references = 0;  // handles the program holds; virtual_mu
  std::uint32_t mappings = 0;    // virtual_mu
};

class RangeMap {
 public:
  void Add(const Range& range);
  // Removes the range that starts there; false when there is none.
  bool Remove(std::uint64_t address, Range* removed = nullptr);
  // The range that holds `address`.
  bool Find(std::uint64_t address, Range* range) const;
  // Whether [address, address + bytes) lies in one range.
  [[nodiscard]] bool Holds(std::uint64_t address, std::uint64_t bytes) const;
  // Of the context: all but pinned memory, which is the process's. What is
  // managed is to be released.
  std::vector<Range> RemoveOf(const Context* context);

 private:
  mutable std::shared_mutex mu_;
  std::map<std::uint64_t, Range> ranges_;
};

class Driver {
 public:
  static Driver& Get();

  // cuInit.
  CUresult Init();
  // CUDA_SUCCESS, or why nothing can be called now.
  [[nodiscard]] CUresult Ready() const;

  [[nodiscard]] int device_count() const {
    return static_cast<int>(devices_.size());
  }
  // nullptr for a bad ordinal.
  [[nodiscard]] const DeviceState* device(CUdevice ordinal) const {
    return ordinal >= 0 && ordinal < device_count()
               ? &devices_[static_cast<std::size_t>(ordinal)]
               : nullptr;
  }
  [[nodiscard]] Context* primary(CUdevice ordinal) const {
    return primaries_[static_cast<std::size_t>(ordinal)];
  }

  // Makes the context exist in the runner.
  CUresult Activate(Context* context);
  CUresult Deactivate(Context* context);
  Context* NewContext(int device, std::uint32_t flags, bool primary);

  [[nodiscard]] Context* FindContext(CUcontext handle) const {
    return contexts.Get(reinterpret_cast<std::uint64_t>(handle));
  }
  static CUcontext HandleOf(const Context* context) {
    return reinterpret_cast<CUcontext>(
        context == nullptr ? 0 : context->id.load(std::memory_order_relaxed));
  }
  // Ready, and the thread has an active current context.
  CUresult Current(Context** context) const;
  // The thread's current context, else an active primary one, else nullptr.
  [[nodiscard]] Context* CurrentOrPrimary() const;
  // The runner's stream behind a handle: 0, 1 and 2 stand for default streams.
  CUresult Resolve(CUstream stream, bool per_thread, Context** context,
                   std::uint64_t* id);
  // At the end of a thread: destroys the streams that were its default ones.
  void DropOwnStreams(ThreadState* thread);
  // The runner's function behind a CUfunction or a CUkernel.
  CUresult ResolveFunction(CUfunction handle, Context* context,
                           Function** function);

  IdTable<Context> contexts;
  IdTable<Stream> streams;
  IdTable<Event> events;
  IdTable<Function> functions;
  IdTable<Module> modules;
  IdTable<Library> libraries;
  IdTable<Kernel> kernels;
  RangeMap ranges;
  IdTable<Physical> physicals;
  // Guards what api_virtual_memory.cc keeps of ranges and mappings.
  Mutex virtual_mu;
  // Guards the maps inside modules, libraries, kernels and functions. Never
  // held across a call to the runner.
  Mutex code_mu;

  std::uint64_t NextUniqueId() {
    return next_unique_.fetch_add(1, std::memory_order_relaxed);
  }

  // Called before a context's device state goes, if set; once, at start.
  void SetContextEndHook(void (*hook)(Context*)) {
    context_end_.store(hook, std::memory_order_release);
  }

  // Logs once, for each name, that a function is not supported.
  static CUresult Unsupported(const char* name);

 private:
  CUresult FetchDevices();
  CUresult OwnStream(Context* context, std::uint64_t* id);

  std::atomic<bool> initialized_{false};
  Mutex init_mu_;
  std::vector<DeviceState> devices_;
  std::vector<Context*> primaries_;
  std::atomic<std::uint64_t> next_unique_{1};
  std::atomic<void (*)(Context*)> context_end_{nullptr};
};

// --- Calls to the runner ---

// A call with a reply.
template <typename Args, typename Out>
CUresult Call(const Args& args, Out* out, const Payload& payload = {}) {
  Reply reply;
  const std::span<const std::byte> bytes =
      std::as_bytes(std::span(&args, 1)).first(cuda::kWireBytes<Args>);
  const std::int32_t result = Client::Get().Call(
      static_cast<std::uint16_t>(Args::kOp), bytes, payload, &reply);
  if constexpr (cuda::kWireBytes<Out> != 0) {
    if (reply.bytes == sizeof(Out)) {
      std::memcpy(out, reply.data.data(), sizeof(Out));
    }
  }
  return static_cast<CUresult>(result);
}

// A call whose reply is only its result.
template <typename Args>
CUresult CallNoOut(const Args& args, const Payload& payload = {}) {
  Reply reply;
  const std::span<const std::byte> bytes =
      std::as_bytes(std::span(&args, 1)).first(cuda::kWireBytes<Args>);
  return static_cast<CUresult>(Client::Get().Call(
      static_cast<std::uint16_t>(Args::kOp), bytes, payload, &reply));
}

// A call without a reply.
template <typename Args>
CUresult Post(const Args& args, const Payload& payload = {}) {
  const std::span<const std::byte> bytes =
      std::as_bytes(std::span(&args, 1)).first(cuda::kWireBytes<Args>);
  return static_cast<CUresult>(Client::Get().Send(
      static_cast<std::uint16_t>(Args::kOp), bytes, payload));
}

// Runs a call that answers into staging: `fetch(lease, bytes)` sends it and
// returns its result; then `take(bytes)` gets the staged answer.
class StagedAnswer {
 public:
  explicit StagedAnswer(std::uint64_t bytes)
      : lease_(Client::Get().AcquireLease(bytes)), bytes_(bytes) {}
  ~StagedAnswer() {
    if (lease_ != wire::kNoLease) Client::Get().ReleaseLease(lease_);
  }
  StagedAnswer(const StagedAnswer&) = delete;
  StagedAnswer& operator=(const StagedAnswer&) = delete;

  [[nodiscard]] bool ok() const { return lease_ != wire::kNoLease; }
  [[nodiscard]] Payload AsPayload() const {
    return {.inline_data = {},
            .lease = lease_,
            .bulk_bytes = bytes_,
            .flags = wire::kFrameBulkOut};
  }
  // Copies the first `bytes` out.
  [[nodiscard]] std::vector<std::byte> Take(std::uint64_t bytes) const;

 private:
  const std::uint32_t lease_;
  const std::uint64_t bytes_;
};

}  // namespace pos::shim

#endif  // REMOTING_SHIM_DRIVER_STATE_H_
