// What a call does to device memory, and who wants to know it before the call
// reaches the device: a checkpoint that copies while the job runs, a restore
// that loads memory behind a job that runs already.
//
//   executor ── AccessSet of the call ──> MemoryWatch::BeforeCall
//                                           kGo: handed to the device
//                                           kWait: asked again later
//
// A session has at most one watch, and none most of the time: then nothing is
// computed. Nothing that decides whether an image is right may rest on an
// AccessSet that is not kProven, and no copy is right because of one: images
// are proved by content.
//
// Threads: BeforeCall, Step: the worker's. A watch is set and taken away while
// the
//   pipeline is paused.
#ifndef POS_WORKER_MEMORY_WATCH_H_
#define POS_WORKER_MEMORY_WATCH_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "pos/device/device.h"

namespace pos {

enum class AccessBasis : std::uint8_t {
  kProven,   // every access is in `reads` or `writes`
  kGuessed,  // `writes` is likely; reads are not known
  kUnknown,  // anything may be read and written
};

// Ranges of device memory, in any order, possibly overlapping; they may reach
// beyond allocations, contain more than is accessed, and lie on several devices
// of the session. Memory that is mapped at several addresses is named at each.
// Reused from call to call: no allocation in steady state.
struct AccessSet {
  AccessBasis basis = AccessBasis::kUnknown;
  std::vector<MemoryRange> reads;   // empty unless kProven
  std::vector<MemoryRange> writes;  // empty when kUnknown

  void Clear() {
    basis = AccessBasis::kUnknown;
    reads.clear();
    writes.clear();
  }
};

struct CallAccess {
  std::uint64_t pc = 0;
  std::string_view what;  // the kernel's name, else the call's; for messages
  int device = 0;         // of the session; where the work is done
  // Where the work goes; nullptr when the call is no work of a stream: then
  // there is nothing that waits could be submitted to, and what the memory
  // holds has to be safe before kGo.
  DeviceStream* stream = nullptr;
  // `writes` is memory that the call gives back: nothing is mapped there
  // afterwards, and a later call may make other memory there. (Or the call
  // forbids every access, and a later one may allow it again: such memory is
  // mapped physical memory, whose content stays in either case.) For a call
  // that frees, that is when its work is done, so waits in `stream` delay it.
  bool releases = false;
  // `writes` is memory that the call makes: nothing was mapped there before,
  // so there is nothing to preserve and nothing to load. (What a module or a
  // heap takes is chosen by the call itself and not announced.)
  bool makes = false;
  const AccessSet* set = nullptr;
};

class MemoryWatch {
 public:
  enum class Verdict : std::uint8_t { kGo, kWait };
  virtual ~MemoryWatch() = default;
  // Asked for calls that may touch device memory, in the order of execution.
  // Must not block and must not call into the session, but for Session::Wake.
  // kGo: the call is handed to the device as soon as this returns; waits that
  // it needs have been submitted to `access.stream`. (The device may still
  // refuse it.) kWait: this call and all later ones of the session stay where
  // they are (they are pending calls for a cut) until Session::Wake; then it is
  // asked again, and it may be asked again earlier. Work that is on the device
  // goes on and is finished meanwhile. `access` is valid during the call.
  virtual Verdict BeforeCall(const CallAccess& access) = 0;
  // Asked again and again while calls come, and after each Session::Wake, also
  // when there are none: the place for work of its own on the devices. False
  // when there was none. Must not block.
  virtual bool Step() { return false; }
};

}  // namespace pos

#endif  // POS_WORKER_MEMORY_WATCH_H_
