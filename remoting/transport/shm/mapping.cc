#include "remoting/transport/shm/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace pos {

Result<UniqueFd> CreateSealedMemory(const char* name, std::uint64_t bytes) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoStatus(errno, "memfd_create");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, "size of shared memory");
  }
  if (::fcntl(fd.get(), F_ADD_SEALS,
              F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "seal shared memory");
  }
  return fd;
}

SharedMapping::SharedMapping(SharedMapping&& other) noexcept {
  *this = std::move(other);
}

SharedMapping& SharedMapping::operator=(SharedMapping&& other) noexcept {
  if (this != &other) {
    Unmap();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    mapped_ = std::exchange(other.mapped_, 0);
  }
  return *this;
}

Result<SharedMapping> SharedMapping::Map(int fd, std::uint64_t bytes,
                                         std::uint64_t mirror_bytes) {
  SharedMapping mapping;
  const std::uint64_t total = bytes + mirror_bytes;
  void* const base = ::mmap(nullptr, total, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return ErrnoStatus(errno, "reserve addresses");
  mapping.data_ = static_cast<std::byte*>(base);
  mapping.bytes_ = bytes;
  mapping.mapped_ = total;
  const int kProtection = PROT_READ | PROT_WRITE;
  if (::mmap(base, bytes, kProtection, MAP_SHARED | MAP_FIXED, fd, 0) ==
      MAP_FAILED) {
    return ErrnoStatus(errno, "map shared memory");
  }
  if (mirror_bytes != 0 &&
      ::mmap(mapping.data_ + bytes, mirror_bytes, kProtection,
             MAP_SHARED | MAP_FIXED, fd,
             static_cast<off_t>(bytes - mirror_bytes)) == MAP_FAILED) {
    return ErrnoStatus(errno, "map shared memory twice");
  }
  if (::madvise(base, total, MADV_DONTFORK) != 0) {
    return ErrnoStatus(errno, "madvise");
  }
  return mapping;
}

void SharedMapping::Unmap() {
  if (data_ != nullptr) ::munmap(data_, mapped_);
  data_ = nullptr;
  bytes_ = 0;
  mapped_ = 0;
}

}  // namespace pos
