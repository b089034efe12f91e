// cuMemHostRegister: memory that is the program's own.
//
// Shared mappings of files (shared memory among them) are mapped by the runner
// as well, from the file itself, so kernels see them and copies need no
// staging. Private memory cannot be shared without being remapped, which would
// lose what another thread writes meanwhile: refused, with a log line.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "pos/base/fd.h"
#include "remoting/shim/driver_state.h"

namespace pos::shim {
namespace {

constexpr std::uint64_t kPage = 4096;

// A line of /proc/self/maps.
struct MappedFile {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t offset = 0;
  dev_t device = 0;
  ino_t inode = 0;
  bool shared = false;
  std::string path;
};

// The mapping that holds all of [address, address + bytes).
bool FindMapping(std::uint64_t address, std::uint64_t bytes,
                 MappedFile* found) {
  std::FILE* const maps = std::fopen("/proc/self/maps", "re");
  if (maps == nullptr) return false;
  char line[4352];
  bool ok = false;
  while (!ok && std::fgets(line, sizeof(line), maps) != nullptr) {
    char access[5] = "";
    unsigned major = 0;
    unsigned minor = 0;
    std::uint64_t inode = 0;
    int path_at = 0;
    if (std::sscanf(line,
                    "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64
                    " %n",
                    &found->begin, &found->end, access, &found->offset, &major,
                    &minor, &inode, &path_at) < 7) {
      continue;
    }
    if (found->begin > address || found->end < address + bytes) continue;
    found->device = makedev(major, minor);
    found->inode = static_cast<ino_t>(inode);
    found->shared = access[3] == 's';
    found->path = line + path_at;
    while (!found->path.empty() && found->path.back() == '\n') {
      found->path.pop_back();
    }
    ok = true;
  }
  std::fclose(maps);
  return ok;
}

bool IsFile(int fd, const MappedFile& file) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 && info.st_dev == file.device &&
         info.st_ino == file.inode;
}

// A descriptor of the file: one that the process has open, or by its path.
UniqueFd OpenMapped(const MappedFile& file) {
  DIR* const directory = ::opendir("/proc/self/fd");
  UniqueFd found;
  while (directory != nullptr && !found.valid()) {
    const dirent* const entry = ::readdir(directory);
    if (entry == nullptr) break;
    const int fd = std::atoi(entry->d_name);
    if (entry->d_name[0] == '.' || fd == ::dirfd(directory)) continue;
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) != O_RDWR || !IsFile(fd, file)) {
      continue;
    }
    found.Reset(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  }
  if (directory != nullptr) ::closedir(directory);
  if (found.valid() || file.path.empty() || file.path[0] != '/') return found;
  found.Reset(::open(file.path.c_str(), O_RDWR | O_CLOEXEC));
  if (found.valid() && !IsFile(found.get(), file)) found.Reset();
  return found;
}

CUresult Register(std::uint64_t address, std::uint64_t bytes, unsigned flags) {
  constexpr unsigned kKnown =
      CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
  if (bytes == 0 || address == 0) return CUDA_ERROR_INVALID_VALUE;
  if ((flags & ~kKnown) != 0) {
    return Driver::Unsupported("cuMemHostRegister with these flags");
  }
  Driver& driver = Driver::Get();
  Context* context = nullptr;
  CUresult result = driver.Current(&context);
  if (result != CUDA_SUCCESS) return result;
  const std::uint64_t begin = address / kPage * kPage;
  const std::uint64_t end = (address + bytes + kPage - 1) / kPage * kPage;
  MappedFile file;
  if (!FindMapping(begin, end - begin, &file) || !file.shared) {
    return Driver::Unsupported("cuMemHostRegister of private memory");
  }
  const UniqueFd fd = OpenMapped(file);
  if (!fd.valid()) {
    return Driver::Unsupported(
        "cuMemHostRegister of a mapping whose file is closed");
  }
  const std::uint64_t number = Client::Get().SendFile(fd.get());
  if (number == 0) return static_cast<CUresult>(kLostError);
  result = CallNoOut(
      cuda::HostRegisterArgs{.address = begin,
                             .bytes = end - begin,
                             .file = number,
                             .offset = file.offset + (begin - file.begin)});
  if (result != CUDA_SUCCESS) return result;
  driver.ranges.Add({.address = address,
                     .bytes = bytes,
                     .kind = Range::kRegistered,
                     .context = context,
                     .device = context->device,
                     .flags = flags,
                     .mapped_bytes = end - begin,
                     .buffer_id = driver.NextUniqueId()});
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace pos::shim

using namespace pos::shim;  // NOLINT: this file implements the driver's API

CUresult CUDAAPI cuMemHostRegister_v2(void* pointer, std::size_t bytes,
                                      unsigned flags) {
  return Register(reinterpret_cast<std::uint64_t>(pointer), bytes, flags);
}

CUresult CUDAAPI cuMemHostUnregister(void* pointer) {
  Driver& driver = Driver::Get();
  if (const CUresult ready = driver.Ready(); ready != CUDA_SUCCESS) {
    return ready;
  }
  const auto address = reinterpret_cast<std::uint64_t>(pointer);
  Range range;
  if (!driver.ranges.Find(address, &range) || range.address != address ||
      range.kind != Range::kRegistered || !driver.ranges.Remove(address)) {
    return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
  }
  return CallNoOut(
      pos::cuda::HostUnregisterArgs{.address = address / kPage * kPage},
      {.despite_fault = true});
}
