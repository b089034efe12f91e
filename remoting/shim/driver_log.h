// Messages about errors that cuLogs… hands out: why something was refused, in
// words. They come from this library and, through a private table, from the
// runtime. "Error Log Management" of NVIDIA's programming guide describes the
// form of a line and CUDA_LOG_FILE; the driver API's reference the size of the
// buffer.
//
// The log is ordinary memory of the process: it comes along with a checkpoint.
// No file stays open.
#ifndef REMOTING_SHIM_DRIVER_LOG_H_
#define REMOTING_SHIM_DRIVER_LOG_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>

#include "pos/base/mutex.h"
#include "remoting/shim/driver.h"

namespace pos::shim {

// Threads: any. Blocking: on its own lock, and for the time that the program's
// callbacks and CUDA_LOG_FILE take; the caller holds no lock of this library.
class DriverLog {
 public:
  // The most that is kept; older messages are dropped.
  static constexpr std::size_t kBytes = 25600;
  static constexpr std::size_t kEntries = 100;

  // Never destroyed.
  static DriverLog& Get();

  // Keeps one message and tells everybody who wants to know. What is not
  // printable becomes a space; more than 1 KiB of it is cut off.
  void Add(CUlogLevel level, std::string_view text) POS_EXCLUDES(mu_);

  // Ids of callbacks begin with 1.
  std::uint64_t Register(CUlogsCallback callback, void* user) POS_EXCLUDES(mu_);
  // False when there is none with that id. One that is just running may run
  // to its end after this.
  bool Unregister(std::uint64_t id) POS_EXCLUDES(mu_);

  // The number that the next message gets.
  [[nodiscard]] CUlogIterator Next() POS_EXCLUDES(mu_);

  // The newest messages from number `*from` on (null: all), oldest first, each
  // with its newline, whole lines of at most `most_bytes` together; before them
  // a line that says so when some of those wanted are missing. `*next`: Next(),
  // of the same instant. False: there are messages, but not one fits.
  bool Text(const CUlogIterator* from, std::size_t most_bytes,
            std::string* text, CUlogIterator* next) POS_EXCLUDES(mu_);

 private:
  struct Callback {
    CUlogsCallback function;
    void* user;
  };

  Mutex mu_;
  std::deque<std::string> lines_ POS_GUARDED_BY(mu_);
  std::size_t bytes_ POS_GUARDED_BY(mu_) = 0;
  CUlogIterator next_ POS_GUARDED_BY(mu_) = 0;
  std::map<std::uint64_t, Callback> callbacks_ POS_GUARDED_BY(mu_);
  std::uint64_t last_id_ POS_GUARDED_BY(mu_) = 0;
};

}  // namespace pos::shim

#endif  // REMOTING_SHIM_DRIVER_LOG_H_
