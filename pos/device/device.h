// The seam between the device-neutral core and hardware.
//
// A Device is one GPU as one runner process sees it. The worker drives it;
// nothing above this header knows whether a driver or the simulator is behind.
//
//   Device ── CreateContext ──> DeviceContext ── CreateStream ──> DeviceStream
//                                     │── CreateEvent ──> DeviceEvent
//                                     └── LoadModule ──> DeviceModule
//                                                          └─> DeviceFunction
//
// Threads: one thread at a time calls into one Device and everything made from
//   it (the session's worker), except DeviceContext::Cancel,
//   Device::FreeBytes and Device::WriteBeside, which any thread may call, and
//   Device::Digest, which any other thread may. Completions arrive on threads
//   of the device or, where there is nothing to wait for, inside the submitting
//   call itself; in the order of completion, one at a time per device.
// Ownership: the caller owns what the Create functions return and destroys it
//   before what it was made from. Destroying a stream or an event never waits:
//   work already submitted still runs (as cuStreamDestroy does). Destroying a
//   context ends its running work, kernels included, and waits until none is
//   left.
// Order: work submitted to one stream runs in submission order. Work of
//   different streams is unordered except through events and through the
//   default stream, which is ordered against every stream of its context that
//   was not created with kStreamNonBlocking (CUDA's legacy default stream).
// Blocking: no submission waits for the device. Completion is reported by
//   token: a submission with a non-zero token calls
//   CompletionSink::OnComplete(token, error) exactly once, after the work and
//   its effects on memory are visible; token 0 asks for no report.
// Errors: a DeviceError is a result code of the API that the device speaks
//   (CUresult for CUDA); 0 is success. A fault of execution is sticky: it
//   poisons its context, what was queued there completes with that error
//   without running, and so does everything submitted later. Kernels that run
//   in the context are ended. Events completed before keep their timestamps.
// Addresses: `DeviceAddress` is one flat space: device memory where Map put
//   it, host memory that the runner shares with its client at the client's
//   address, and memory of the runner process itself (staging). Copies and
//   fills that leave the allocations of device memory fault. An address that
//   is neither device memory nor mapped host memory is taken for the runner's
//   own in copies, and the caller answers for it; kernels fault on it.
#ifndef POS_DEVICE_DEVICE_H_
#define POS_DEVICE_DEVICE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ckpt/format/digest.h"
#include "pos/base/status.h"

namespace pos {

using DeviceAddress = std::uint64_t;
using DeviceError = std::int32_t;

struct MemoryRange {
  DeviceAddress address = 0;
  std::uint64_t bytes = 0;
};

// Where text of a kernel belongs.
enum class OutputKind : std::uint8_t {
  kPrinted = 1,  // printf: the program's standard output
  kFailed = 2,   // a failed assertion: its standard error
};

class CompletionSink {
 public:
  virtual ~CompletionSink() = default;
  // Any thread of the device. Must not block and must not call into the
  // device.
  virtual void OnComplete(std::uint64_t token, DeviceError error) = 0;
  // Text that a kernel printed, whole lines or not: one call for one printf of
  // one thread. Before the kernel's completion. Same rules.
  virtual void OnDeviceOutput(OutputKind kind, std::string_view text) = 0;
};

struct DeviceInfo {
  std::string kind;  // "sim", "cuda" or "null"
  std::string name;
  std::array<std::byte, 16> uuid{};
  std::uint64_t memory_bytes = 0;
  // API attribute number -> value, ascending by number.
  std::vector<std::pair<std::int32_t, std::int32_t>> attributes;
};

// One kernel parameter: where its bytes lie in the parameter block.
struct ParamInfo {
  std::uint32_t offset = 0;
  std::uint32_t size = 0;
};

struct FunctionInfo {
  std::string name;
  std::vector<ParamInfo> params;   // in order; may be empty
  std::uint32_t params_bytes = 0;  // size of the whole block
  // API function attribute number -> value.
  std::vector<std::pair<std::int32_t, std::int32_t>> attributes;
  bool prints = false;     // it may print, or call assert
  bool uses_heap = false;  // it may call malloc or free
  // Not 0: this function can never be launched here (no code for this device,
  // an unsupported instruction). Launches fail with it; the text says why.
  DeviceError launch_error = 0;
  std::string launch_error_text;
};

struct GlobalInfo {
  std::string name;
  DeviceAddress address = 0;
  std::uint64_t bytes = 0;
  bool constant = false;  // __constant__
  bool managed = false;   // __managed__
};

class DeviceFunction {
 public:
  virtual ~DeviceFunction() = default;
  [[nodiscard]] virtual const FunctionInfo& info() const = 0;
  // cuFuncSetAttribute. 0, or the error that the API reports.
  virtual DeviceError SetAttribute(std::int32_t attribute,
                                   std::int32_t value) = 0;
};

class DeviceModule {
 public:
  virtual ~DeviceModule() = default;
  // nullptr when there is none. Owned by the module; one object per name.
  virtual DeviceFunction* FindFunction(std::string_view name) = 0;
  [[nodiscard]] virtual std::vector<std::string> FunctionNames() const = 0;
  [[nodiscard]] virtual const std::vector<GlobalInfo>& Globals() const = 0;
};

// Chooses addresses for what a module brings along (its variables), so that a
// restore can put them where they were. A device whose driver places variables
// itself does not call it.
class ModulePlacer {
 public:
  virtual ~ModulePlacer() = default;
  // A mapped range of at least `bytes`, aligned to `alignment` (a power of
  // two), for the variable `name`, already marked with AddAllocation;
  // kOutOfMemory when there is none. Its content may be anything. It stays the
  // caller's, who takes it back after the module has been destroyed and its
  // launches have completed; also when loading failed after all. Names that
  // start with "." are not variables: ".heap" is the memory of device-side
  // malloc, which is the context's and stays when the module goes.
  virtual Result<DeviceAddress> Place(std::string_view name,
                                      std::uint64_t bytes,
                                      std::uint64_t alignment) = 0;
};

enum StreamFlags : std::uint32_t {
  kStreamDefault = 0,
  kStreamNonBlocking = 1,  // not ordered against the default stream
};

enum EventFlags : std::uint32_t {
  kEventDefault = 0,
  kEventBlockingSync = 1,
  kEventDisableTiming = 2,
};

class DeviceEvent {
 public:
  virtual ~DeviceEvent() = default;
  // The state of the latest RecordEvent: 0 complete (or never recorded),
  // nullopt still pending, else the context's sticky error.
  [[nodiscard]] virtual std::optional<DeviceError> Query() = 0;
  // Completes `token` when the latest record has completed.
  virtual void Notify(std::uint64_t token) = 0;
  // Nanoseconds on the device's clock at which the latest record completed;
  // nullopt when never recorded, pending, or made without timing.
  [[nodiscard]] virtual std::optional<std::uint64_t> TimestampNs() = 0;
  // Restore: the event is complete and was recorded at `timestamp_ns`.
  virtual void SetRecorded(std::uint64_t timestamp_ns) = 0;
};

struct LaunchConfig {
  std::array<std::uint32_t, 3> grid{1, 1, 1};   // blocks
  std::array<std::uint32_t, 3> block{1, 1, 1};  // threads
  std::uint32_t dynamic_shared_bytes = 0;
  bool cooperative = false;  // all blocks resident at once (grid sync)
  // Blocks of a cluster; 0: as the kernel says. A device whose attributes say
  // that it has no clusters refuses more than one.
  std::array<std::uint32_t, 3> cluster{0, 0, 0};
  std::uint32_t cluster_policy = 0;      // the API's
  std::optional<std::int32_t> priority;  // instead of the stream's
  // May begin before what is before it in its stream has ended.
  bool programmatic = false;
  // The device's own, from DeviceLimit::kStackBytes: callers leave it alone.
  std::uint32_t stack_bytes = 0;
};

class DeviceStream {
 public:
  virtual ~DeviceStream() = default;

  virtual void Copy(DeviceAddress dst, DeviceAddress src, std::uint64_t bytes,
                    std::uint64_t token) = 0;
  // `rows` rows of `count` elements of `width` (1, 2 or 4) bytes, row starts
  // `pitch` bytes apart, each element set to the low bytes of `value`.
  virtual void Fill(DeviceAddress dst, std::uint32_t value, std::uint32_t width,
                    std::uint64_t count, std::uint64_t rows,
                    std::uint64_t pitch, std::uint64_t token) = 0;
  // `params` is the parameter block laid out as FunctionInfo says; copied
  // before the call returns. A non-zero result means that nothing was queued
  // and no completion follows.
  virtual DeviceError Launch(DeviceFunction* function,
                             const LaunchConfig& config,
                             std::span<const std::byte> params,
                             std::uint64_t token) = 0;
  virtual void RecordEvent(DeviceEvent* event, std::uint64_t token) = 0;
  // Later work of this stream waits for the latest record of `event` (made on
  // any stream of this device) at the time of this call; nothing to wait for
  // when it was never recorded. Events of other devices: the caller holds the
  // work back until DeviceEvent::Notify has reported.
  virtual void WaitEvent(DeviceEvent* event, std::uint64_t token) = 0;
  // Completes when everything submitted to this stream so far has completed;
  // for the default stream also what it would wait for. Holds back nothing
  // that is submitted later, not even on the default stream.
  virtual void Notify(std::uint64_t token) = 0;
  // 0 idle, nullopt busy, else the context's sticky error. The default stream
  // is busy while any stream is that it would wait for.
  [[nodiscard]] virtual std::optional<DeviceError> Query() = 0;
};

// Limits of a context that a device obeys.
enum class DeviceLimit : std::uint8_t {
  kStackBytes,  // of each thread
  kHeapBytes,   // of device-side malloc
  // Of the text that kernels print and that is not handed on yet. A device that
  // hands it on at once takes any.
  kOutputBytes,
};

class DeviceContext {
 public:
  virtual ~DeviceContext() = default;

  // Owned by the context.
  [[nodiscard]] virtual DeviceStream* default_stream() = 0;
  // `priority`: lower number first, as cuStreamCreateWithPriority.
  virtual Result<std::unique_ptr<DeviceStream>> CreateStream(
      std::uint32_t flags, std::int32_t priority) = 0;
  virtual Result<std::unique_ptr<DeviceEvent>> CreateEvent(
      std::uint32_t flags) = 0;
  // `image`: what the client handed in: a fat binary, a cubin or PTX text. On
  // failure `*error` is what the API reports and the status says why.
  virtual Result<std::unique_ptr<DeviceModule>> LoadModule(
      std::span<const std::byte> image, ModulePlacer* placer,
      DeviceError* error) = 0;

  // `*in_effect`: what the limit is now, after clamping and rounding. An error
  // of the API changes nothing. Launches submitted from now on obey it.
  // `placer` as in LoadModule: a heap that is there already is placed again,
  // empty (the caller has seen to it that no kernel has used it).
  virtual DeviceError SetLimit(DeviceLimit limit, std::uint64_t value,
                               ModulePlacer* placer,
                               std::uint64_t* in_effect) = 0;
  // Restore, before modules are loaded: the heap that was placed at `address`
  // lies there again; its content follows.
  virtual void RestoreHeap(DeviceAddress address, std::uint64_t bytes) = 0;

  // Completes when everything submitted to any stream of this context so far
  // has completed.
  virtual void NotifyIdle(std::uint64_t token) = 0;
  // 0, or the fault that poisoned this context.
  [[nodiscard]] virtual DeviceError sticky_error() const = 0;
  // Ends running work: kernels stop, queued work completes with an error, which
  // from then on is the context's sticky error (unless it had one). Returns at
  // once.
  virtual void Cancel() = 0;
};

// Memory of a device that has no address of its own: it can be mapped at
// several, one after the other or at once, and keeps its content meanwhile. The
// memory goes when the object and its last mapping have gone.
class DevicePhysical {
 public:
  virtual ~DevicePhysical() = default;
  [[nodiscard]] virtual std::uint64_t bytes() const = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  [[nodiscard]] virtual const DeviceInfo& info() const = 0;
  // Whether the driver decides where variables of modules lie: then LoadModule
  // asks no ModulePlacer, and they may lie outside what Map backs.
  [[nodiscard]] virtual bool PlacesVariables() const { return false; }
  // Memory that Map could still hand out. Any thread.
  [[nodiscard]] virtual std::uint64_t FreeBytes() const = 0;
  // What Map and CreatePhysical could still get once they hold `promised` bytes
  // in all. Less than what nobody here was promised, where others than this
  // service take a device's memory. Any thread.
  [[nodiscard]] virtual std::uint64_t Headroom(
      [[maybe_unused]] std::uint64_t promised) const {
    return ~std::uint64_t{0};
  }

  // Backs [address, address + bytes) with memory of the device; both multiples
  // of kMapGranularity. Content is zero. kOutOfMemory when there is none left.
  virtual Status Map(DeviceAddress address, std::uint64_t bytes) = 0;
  // Gives back a range that Map backed. No work may still use it.
  virtual Status Unmap(DeviceAddress address, std::uint64_t bytes) = 0;
  // Memory without an address, zero; a multiple of kMapGranularity.
  // kOutOfMemory when there is none left.
  virtual Result<std::shared_ptr<DevicePhysical>> CreatePhysical(
      std::uint64_t bytes) {
    return Incompatible("this device has no memory without an address (" +
                        std::to_string(bytes) + " bytes asked for)");
  }
  // Maps all of it at `address`, where nothing is mapped. Unmap of the whole
  // range undoes it.
  virtual Status MapPhysical(DeviceAddress address,
                             const std::shared_ptr<DevicePhysical>& physical) {
    return Incompatible("this device cannot map " +
                        std::to_string(physical->bytes()) + " bytes at " +
                        std::to_string(address));
  }
  // Marks [address, address + bytes) inside mapped memory as an allocation, so
  // that a device which checks kernel accesses can tell a stray pointer.
  // Accesses outside every allocation fault where the device can tell.
  virtual void AddAllocation(DeviceAddress address, std::uint64_t bytes) = 0;
  virtual void RemoveAllocation(DeviceAddress address) = 0;

  // Host memory of the runner process at [address, …) that kernels may touch
  // (pinned memory shared with the client).
  virtual Status MapHost(DeviceAddress address, std::uint64_t bytes) = 0;
  virtual Status UnmapHost(DeviceAddress address, std::uint64_t bytes) = 0;

  virtual Result<std::unique_ptr<DeviceContext>> CreateContext(
      std::uint32_t flags, CompletionSink* sink) = 0;

  // Checkpoint and restore, while no work runs: device memory to and from
  // memory of this process. Block until done.
  virtual Status Read(DeviceAddress src, std::span<std::byte> dst) = 0;
  virtual Status Write(DeviceAddress dst, std::span<const std::byte> src) = 0;
  // Lazy restore: as Write, but beside the worker's calls and running work, by
  // any number of threads. The caller sees to it that the range is mapped until
  // this returns, and that nothing else touches it. What is submitted after
  // the return sees the bytes.
  virtual Status WriteBeside(DeviceAddress dst,
                             std::span<const std::byte> src) {
    return Incompatible("this device cannot be written to while work runs (" +
                        std::to_string(src.size()) + " bytes at " +
                        std::to_string(dst) + ")");
  }

  // The digests of what `ranges` hold (ckpt/FORMAT.md, "The digest", digest 1
  // with `seed`), computed where the memory is: `digests[i]` of `ranges[i]`.
  // `digests` has room for all. Reads only; on a device with a driver in a
  // context and a stream of POS's own, so it waits for no work and no work
  // waits for it: what is written meanwhile may or may not show, and the caller
  // sees to it that what it relies on is at rest. Ranges of a few MiB each keep
  // the device busy best.
  // Threads: any, also while another thread calls into the device; not the
  //   session's worker, which it would hold up. Calls of Digest at one time
  //   come one after the other.
  // Blocking: until done; behind kernels that occupy all of the device, until
  //   they leave room. Unmapping waits for it in the meantime, for the time
  //   that 8 GiB take at most.
  // Errors: kInvalid: not all of it is mapped memory of this device; any error
  //   leaves `digests` as it may. A call without ranges makes ready what the
  //   others need (a kernel of POS's own, which the driver compiles).
  virtual Status Digest(std::span<const MemoryRange> ranges, std::uint64_t seed,
                        std::span<ckpt::Digest> digests) {
    return Incompatible("this device computes no digests (" +
                        std::to_string(ranges.size()) + " of seed " +
                        std::to_string(seed) + " asked for, room for " +
                        std::to_string(digests.size()) + ")");
  }

  // Device clock, the one that event timestamps use.
  [[nodiscard]] virtual std::uint64_t NowNs() const = 0;

  static constexpr std::uint64_t kMapGranularity = 2u << 20;
};

}  // namespace pos

#endif  // POS_DEVICE_DEVICE_H_
