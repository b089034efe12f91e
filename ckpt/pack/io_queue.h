// Reads and writes of whole buffers, several in flight: io_uring where the
// kernel and the process's seccomp filter allow it, pread and pwrite
// otherwise.
//
// Threads:   a queue belongs to one thread.
// Ownership: descriptors and memory are the caller's and must stay valid until
//            the operation is handed back by Wait, or the queue is destroyed.
// Blocking:  Write and Read do not wait for the device with io_uring; without,
//            they do the whole operation. Wait blocks until something is
//            finished; kTimeout when nothing was for kIoStallMs: the storage
//            hangs.
// Errors:    an operation's own error comes with its completion: kDiskFull,
//            kCorrupt for a read past the end of the file, other errno codes.
#ifndef CKPT_PACK_IO_QUEUE_H_
#define CKPT_PACK_IO_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "pos/base/status.h"

namespace pos::ckpt {

inline constexpr std::uint64_t kIoStallMs = 120000;

struct IoDone {
  std::uint64_t cookie = 0;
  Status status;
};

class IoQueue {
 public:
  virtual ~IoQueue() = default;

  // Fewer than depth() operations are in flight. The whole of `bytes` is
  // transferred, or the completion has an error.
  virtual Status Write(int fd, std::span<const std::byte> bytes,
                       std::uint64_t offset, std::uint64_t cookie) = 0;
  virtual Status Read(int fd, std::span<std::byte> bytes, std::uint64_t offset,
                      std::uint64_t cookie) = 0;
  // One that has finished. Something is in flight.
  virtual Result<IoDone> Wait() = 0;
  // Something has finished, so Wait will not block.
  [[nodiscard]] virtual bool Finished() = 0;

  [[nodiscard]] virtual std::size_t in_flight() const = 0;
  // False: an operation is done when Write or Read returns.
  [[nodiscard]] virtual bool asynchronous() const = 0;
  [[nodiscard]] virtual std::size_t depth() const = 0;
};

enum class IoKind { kAuto, kUring, kSync };

// kAuto: io_uring, else the other. kUring fails where there is none.
Result<std::unique_ptr<IoQueue>> MakeIoQueue(IoKind kind, unsigned depth);
// nullptr when this kernel or this process's filter refuses io_uring.
[[nodiscard]] std::unique_ptr<IoQueue> MakeUringQueue(unsigned depth);

// Makes transfers of `fd` go past the page cache, if the file system does that
// for blocks of kBlockBytes. True when it does. Affects every duplicate of the
// descriptor.
bool EnableDirectIo(int fd);

}  // namespace pos::ckpt

#endif  // CKPT_PACK_IO_QUEUE_H_
