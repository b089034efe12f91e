// File descriptors: ownership, and reads and writes that do not stop half-way.
#ifndef POS_BASE_FD_H_
#define POS_BASE_FD_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "pos/base/status.h"

namespace pos {

// Owns one descriptor and closes it. Movable; -1 means none.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Reset(); }

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  [[nodiscard]] int Release() { return std::exchange(fd_, -1); }
  void Reset(int fd = -1);

 private:
  int fd_ = -1;
};

// All of `bytes`, or an error. `what` names the file in the error. Retries
// EINTR; on a non-blocking descriptor EAGAIN is an error.
Status WriteFull(int fd, std::span<const std::byte> bytes,
                 const std::string& what);
Status PwriteFull(int fd, std::span<const std::byte> bytes,
                  std::uint64_t offset, const std::string& what);
// Exactly bytes.size() bytes, or kCorrupt when the file ends before.
Status PreadFull(int fd, std::span<std::byte> bytes, std::uint64_t offset,
                 const std::string& what);
// Up to bytes.size(); 0 at the end of file.
Result<std::size_t> ReadSome(int fd, std::span<std::byte> bytes,
                             const std::string& what);

Result<UniqueFd> DuplicateFd(int fd);  // close-on-exec
Status SetNonBlocking(int fd, bool on);
Status SetCloseOnExec(int fd, bool on);

}  // namespace pos

#endif  // POS_BASE_FD_H_
