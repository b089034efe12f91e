// Small files and directories: whole-file reads, atomic replacement, trees.
#ifndef POS_BASE_FILES_H_
#define POS_BASE_FILES_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos {

// `flags` as open(2) takes them; O_CLOEXEC is added.
Result<UniqueFd> OpenFile(const std::string& path, int flags,
                          mode_t mode = 0600);
// At most `limit_bytes`; a larger file is kInvalid.
Result<std::string> ReadWholeFile(const std::string& path,
                                  std::uint64_t limit_bytes = 16 << 20);
// `path` holds either its old content or all of `content`, whatever happens:
// temporary file in the same directory, fsync, rename, fsync of the directory.
Status ReplaceFile(const std::string& path, std::string_view content,
                   mode_t mode = 0600);
Status SyncDirectory(const std::string& path);
// Creates missing parents too, all with `mode`.
Status MakeDirectories(const std::string& path, mode_t mode = 0700);
// Names, sorted, without "." and "..".
Result<std::vector<std::string>> ListDirectory(const std::string& path);
// Removes a tree without following links; absent is OK.
Status RemoveTree(const std::string& path);
Status RemoveFile(const std::string& path);  // absent is OK
Result<std::uint64_t> FileSize(const std::string& path);
[[nodiscard]] bool PathExists(const std::string& path);
// "a" + "b" -> "a/b".
[[nodiscard]] std::string JoinPath(std::string_view a, std::string_view b);

}  // namespace pos

#endif  // POS_BASE_FILES_H_
