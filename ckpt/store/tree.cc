#include "ckpt/store/tree.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "pos/base/files.h"

namespace pos::ckpt {
namespace {

constexpr std::size_t kReadBytes = 1u << 20;

}  // namespace

Result<Tree> ListTree(const std::string& root) {
  namespace fs = std::filesystem;
  Tree tree;
  std::error_code error;
  fs::recursive_directory_iterator it(root, error);
  for (const fs::recursive_directory_iterator end; !error && it != end;
       it.increment(error)) {
    const std::string path = it->path().string().substr(root.size() + 1);
    const fs::file_status status = it->symlink_status(error);
    if (error) break;
    if (status.type() == fs::file_type::directory) {
      tree.directories.push_back(path);
    } else if (status.type() == fs::file_type::regular) {
      tree.files.push_back(path);
    } else {
      return Invalid(root + "/" + path +
                     " is neither a directory nor a regular file");
    }
  }
  if (error) return ErrnoStatus(error.value(), "list " + root);
  std::sort(tree.files.begin(), tree.files.end());
  std::sort(tree.directories.begin(), tree.directories.end());
  return tree;
}

Result<Digest> DigestFile(int fd, const std::string& name, const DigestKey& key,
                          std::uint64_t* bytes) {
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  std::vector<std::byte> buffer(kReadBytes);
  DigestStream digest(key);
  std::uint64_t at = 0;
  for (;;) {
    const ssize_t n =
        ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "read " + name);
    if (n == 0) break;
    digest.Update(std::span(buffer).first(static_cast<std::size_t>(n)));
    at += static_cast<std::uint64_t>(n);
  }
  *bytes = at;
  return digest.Finish();
}

Status SyncFd(int fd, const std::string& name) {
  if (::fsync(fd) != 0) return ErrnoStatus(errno, "fsync " + name);
  return {};
}

Result<FileRecord> DescribeFile(const std::string& root,
                                const std::string& path, const DigestKey& key,
                                bool sync) {
  const std::string full = JoinPath(root, path);
  POS_ASSIGN_OR_RETURN(const UniqueFd fd,
                       OpenFile(full, O_RDONLY | O_NOFOLLOW));
  if (sync) POS_RETURN_IF_ERROR(SyncFd(fd.get(), full));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return ErrnoStatus(errno, "stat " + full);
  FileRecord record;
  record.path = path;
  record.mode = st.st_mode & 07777;
  POS_ASSIGN_OR_RETURN(record.digest,
                       DigestFile(fd.get(), full, key, &record.bytes));
  return record;
}

}  // namespace pos::ckpt
