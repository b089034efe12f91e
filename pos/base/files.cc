#include "pos/base/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <span>
#include <system_error>

namespace pos {

Result<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode) {
  for (;;) {
    UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
    if (fd.valid()) return fd;
    if (errno != EINTR) return ErrnoStatus(errno, "open " + path);
  }
}

Result<std::string> ReadWholeFile(const std::string& path,
                                  std::uint64_t limit_bytes) {
  POS_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY));
  std::string content;
  std::array<std::byte, 16384> buffer;
  for (;;) {
    POS_ASSIGN_OR_RETURN(const std::size_t n, ReadSome(fd.get(), buffer, path));
    if (n == 0) return content;
    if (content.size() + n > limit_bytes) {
      return Invalid(path + " is larger than " + std::to_string(limit_bytes) +
                     " bytes");
    }
    content.append(reinterpret_cast<const char*>(buffer.data()), n);
  }
}

Status ReplaceFile(const std::string& path, std::string_view content,
                   mode_t mode) {
  static std::atomic<unsigned> counter{0};
  const std::string temporary =
      path + ".tmp." + std::to_string(::getpid()) + "." +
      std::to_string(counter.fetch_add(1, std::memory_order_relaxed));
  // The name is this process's alone: what has it was left by a dead one that
  // had the same pid.
  POS_RETURN_IF_ERROR(RemoveFile(temporary));
  POS_ASSIGN_OR_RETURN(
      UniqueFd fd,
      OpenFile(temporary, O_WRONLY | O_CREAT | O_EXCL | O_TRUNC, mode));
  Status status =
      WriteFull(fd.get(), std::as_bytes(std::span(content)), temporary);
  if (status.ok() && ::fsync(fd.get()) != 0) {
    status = ErrnoStatus(errno, "fsync " + temporary);
  }
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, "rename to " + path);
  }
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  const std::string parent = std::filesystem::path(path).parent_path();
  return SyncDirectory(parent.empty() ? "." : parent);
}

Status SyncDirectory(const std::string& path) {
  POS_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) != 0) return ErrnoStatus(errno, "fsync " + path);
  return {};
}

Status MakeDirectories(const std::string& path, mode_t mode) {
  if (path.empty() || path == "/") return {};
  if (::mkdir(path.c_str(), mode) == 0) return {};
  if (errno == ENOENT) {
    POS_RETURN_IF_ERROR(
        MakeDirectories(std::filesystem::path(path).parent_path(), mode));
    if (::mkdir(path.c_str(), mode) == 0) return {};
  }
  if (errno == EEXIST) {
    struct stat st {};
    if (::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) return {};
    return Exists(path + " is there and is not a directory");
  }
  return ErrnoStatus(errno, "mkdir " + path);
}

Result<std::vector<std::string>> ListDirectory(const std::string& path) {
  DIR* dir = ::opendir(path.c_str());
  if (dir == nullptr) return ErrnoStatus(errno, "open directory " + path);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  ::closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

Status RemoveTree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return ErrnoStatus(error.value(), "remove " + path);
  return {};
}

Status RemoveFile(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  return ErrnoStatus(errno, "remove " + path);
}

Result<std::uint64_t> FileSize(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return ErrnoStatus(errno, "stat " + path);
  return static_cast<std::uint64_t>(st.st_size);
}

bool PathExists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

std::string JoinPath(std::string_view a, std::string_view b) {
  std::string joined(a);
  if (!joined.empty() && joined.back() != '/') joined += '/';
  joined += b;
  return joined;
}

}  // namespace pos
