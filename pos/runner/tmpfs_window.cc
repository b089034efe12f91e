#include "pos/runner/tmpfs_window.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "pos/base/clock.h"
#include "pos/base/log.h"

namespace pos {
namespace {

void* Pointer(std::uint64_t address) {
  return reinterpret_cast<void*>(address);
}

}  // namespace

ReservedRange::ReservedRange(ReservedRange&& other) noexcept
    : base_(std::exchange(other.base_, 0)),
      bytes_(std::exchange(other.bytes_, 0)) {}

ReservedRange& ReservedRange::operator=(ReservedRange&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

ReservedRange::~ReservedRange() {
  if (bytes_ != 0) ::munmap(Pointer(base_), bytes_);
}

Result<ReservedRange> ReservedRange::At(std::uint64_t base,
                                        std::uint64_t bytes) {
  void* const got = ::mmap(
      Pointer(base), bytes, PROT_NONE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == MAP_FAILED || got != Pointer(base)) {
    const int error = errno;
    if (got != MAP_FAILED) ::munmap(got, bytes);
    return Incompatible(
        "addresses " + Hex(base) + " + " + Hex(bytes) +
        " cannot be reserved: " + ErrnoStatus(error, "mmap").message());
  }
  ReservedRange range;
  range.base_ = base;
  range.bytes_ = bytes;
  return range;
}

Result<std::unique_ptr<TmpfsWindow>> TmpfsWindow::Create(UniqueFd file,
                                                         std::uint64_t base,
                                                         std::uint64_t bytes) {
  POS_ASSIGN_OR_RETURN(ReservedRange range, ReservedRange::At(base, bytes));
  return std::unique_ptr<TmpfsWindow>(
      new TmpfsWindow(std::move(file), std::move(range), base));
}

Status TmpfsWindow::Map(std::uint64_t address, std::uint64_t bytes) {
  const auto offset = static_cast<off_t>(address - base_);
  const auto length = static_cast<off_t>(bytes);
  if (::fallocate(file_.get(), 0, offset, length) != 0) {
    const int error = errno;
    ::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                length);
    if (error == ENOSPC) {
      return OutOfMemory("no room for " + std::to_string(bytes) +
                         " bytes of pinned memory");
    }
    return ErrnoStatus(error, "pinned memory");
  }
  if (::mmap(Pointer(address), bytes, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED, file_.get(), offset) == MAP_FAILED) {
    return ErrnoStatus(errno, "map pinned memory");
  }
  return {};
}

void TmpfsWindow::Unmap(std::uint64_t address, std::uint64_t bytes) {
  ::mmap(Pointer(address), bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  ::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
              static_cast<off_t>(address - base_), static_cast<off_t>(bytes));
}

bool TmpfsWindow::AddFile(std::uint64_t number, UniqueFd file) {
  MutexLock lock(&mu_);
  if (files_.size() >= kMaxFiles) return false;
  files_[number] = std::move(file);
  return true;
}

// The file comes over another way than the call.
Status TmpfsWindow::MapFile(std::uint64_t address, std::uint64_t bytes,
                            std::uint64_t file, std::uint64_t offset) {
  UniqueFd fd;
  const Deadline until = Deadline::AfterMs(kFileMs);
  while (!fd.valid()) {
    {
      MutexLock lock(&mu_);
      const auto it = files_.find(file);
      if (it != files_.end()) {
        fd = std::move(it->second);
        files_.erase(it);
        break;
      }
    }
    if (until.Passed()) return Timeout("the client's file does not come");
    SleepNs(50'000);
  }
  void* const got = ::mmap(Pointer(address), bytes, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_FIXED_NOREPLACE, fd.get(),
                           static_cast<off_t>(offset));
  if (got == MAP_FAILED) {
    return ErrnoStatus(errno, "map memory of the client at " + Hex(address));
  }
  return {};
}

void TmpfsWindow::UnmapFile(std::uint64_t address, std::uint64_t bytes) {
  ::munmap(Pointer(address), bytes);
}

}  // namespace pos
