// What the driver writes to this process's standard streams: text that kernels
// print goes to descriptor 1, failed assertions to descriptor 2, when something
// synchronizes. Both become files in memory that are read back, so that nothing
// blocks whoever writes and all of a synchronizing call's text is there when it
// has returned.
//
// Descriptors are the process's, so there is one object at most. It is made
// when the first code that may print is loaded: what other code makes a driver
// say stays in the runner's log. The log itself goes on to where descriptor 2
// led before.
//
// Threads: any.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_DRIVER_OUTPUT_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_DRIVER_OUTPUT_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/device/device.h"

namespace pos::cuda_device {

class DriverOutput {
 public:
  // The process's; made if there is none, and gone with what the last caller
  // was given: the descriptors are back before the next one is made.
  static Result<std::shared_ptr<DriverOutput>> Get();
  // Gives the descriptors back; what nobody has drained goes to where they led.
  ~DriverOutput();
  DriverOutput(const DriverOutput&) = delete;
  DriverOutput& operator=(const DriverOutput&) = delete;

  // Hands on what has been written since the last time, in pieces that fit the
  // smallest FIFO. What comes from descriptor 2 is copied to the log's, too.
  void Drain(CompletionSink* sink) POS_EXCLUDES(mu_);

 private:
  struct Stream {
    int number;       // 1 or 2
    UniqueFd before;  // what it was
    UniqueFd file;
    std::uint64_t read = 0;
  };

  // A count of its own: a shared_ptr's is 0 before the object has ended.
  struct Process {
    Mutex mu;
    int uses POS_GUARDED_BY(mu) = 0;
    std::unique_ptr<DriverOutput> output POS_GUARDED_BY(mu);
  };
  static Process& TheProcess();

  DriverOutput() = default;
  Status Redirect();
  // The next piece; empty at the end.
  static std::string_view Next(Stream* stream, std::array<char, 1000>* piece);

  Mutex mu_;
  std::array<Stream, 2> streams_ POS_GUARDED_BY(mu_) = {
      Stream{.number = 1, .before = {}, .file = {}},
      Stream{.number = 2, .before = {}, .file = {}}};
};

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_DRIVER_OUTPUT_H_
