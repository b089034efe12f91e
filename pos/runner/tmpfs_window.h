// The host window of a session: a sparse file on tmpfs that runner and client
// map at the same addresses.
//
// The file belongs to the job's runtime directory and is as large as the
// window; only what was allocated takes memory. A page is reserved (fallocate)
// before anybody may touch it: a full tmpfs is an error at the call, never a
// SIGBUS.
//
// Threads: the worker's.
#ifndef POS_RUNNER_TMPFS_WINDOW_H_
#define POS_RUNNER_TMPFS_WINDOW_H_

#include <cstdint>
#include <map>
#include <memory>

#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/cuda_impl/worker/host_window.h"

namespace pos {

// Addresses taken out of this process's use, inaccessible until something is
// mapped over them. Given back with the object.
class ReservedRange {
 public:
  ReservedRange() = default;
  ReservedRange(ReservedRange&& other) noexcept;
  ReservedRange& operator=(ReservedRange&& other) noexcept;
  ReservedRange(const ReservedRange&) = delete;
  ReservedRange& operator=(const ReservedRange&) = delete;
  ~ReservedRange();

  // Exactly [base, base + bytes); kIncompatible when something is there.
  static Result<ReservedRange> At(std::uint64_t base, std::uint64_t bytes);

 private:
  std::uint64_t base_ = 0;
  std::uint64_t bytes_ = 0;
};

class TmpfsWindow : public cuda::HostWindow {
 public:
  // Takes `file` (of `bytes` bytes, read and write) and reserves
  // [base, base + bytes).
  static Result<std::unique_ptr<TmpfsWindow>> Create(UniqueFd file,
                                                     std::uint64_t base,
                                                     std::uint64_t bytes);

  Status Map(std::uint64_t address, std::uint64_t bytes) override;
  void Unmap(std::uint64_t address, std::uint64_t bytes) override;
  Status MapFile(std::uint64_t address, std::uint64_t bytes, std::uint64_t file,
                 std::uint64_t offset) override POS_EXCLUDES(mu_);
  void UnmapFile(std::uint64_t address, std::uint64_t bytes) override;
  [[nodiscard]] int fd() const { return file_.get(); }
  // A file that the client has sent: MapFile waits for it. Any thread. A client
  // that sends many and maps none is refused more (false).
  bool AddFile(std::uint64_t number, UniqueFd file) POS_EXCLUDES(mu_);

 private:
  static constexpr std::size_t kMaxFiles = 64;
  static constexpr std::uint64_t kFileMs = 5000;
  TmpfsWindow(UniqueFd file, ReservedRange range, std::uint64_t base)
      : file_(std::move(file)), range_(std::move(range)), base_(base) {}

  const UniqueFd file_;
  const ReservedRange range_;
  const std::uint64_t base_;
  Mutex mu_;
  std::map<std::uint64_t, UniqueFd> files_ POS_GUARDED_BY(mu_);
};

}  // namespace pos

#endif  // POS_RUNNER_TMPFS_WINDOW_H_
