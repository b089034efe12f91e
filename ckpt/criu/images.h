// The parts of CRIU's image files that POS reads or adjusts. The files are
// CRIU's (images/*.proto there); a file is two magic numbers, then entries of
// 32-bit length and a protocol-buffer message.
//
// Threads: functions of their arguments and of the directory.
// Bounds:  a file above 256 MiB is refused (kInvalid), so memory is bounded.
// Errors:  kNoSuch without the file, kCorrupt when it is not what CRIU writes.
//
// Test: tests/ckpt/criu/images_test.cc   Fuzzer: tests/fuzz/criu_images_fuzz.cc
#ifndef CKPT_CRIU_IMAGES_H_
#define CKPT_CRIU_IMAGES_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pos/base/status.h"

namespace pos {

// One process of pstree.img. Ids are those of the job's own pid namespace.
struct CriuTask {
  pid_t pid = 0;
  pid_t parent = 0;  // 0: the root of the tree
  pid_t group = 0;
  pid_t session = 0;
  std::vector<pid_t> threads;
};
Result<std::vector<CriuTask>> ReadCriuTree(const std::string& directory);

// Every id that a restore needs to be free: processes, threads, and groups and
// sessions whose leader is gone. Sorted, without duplicates.
[[nodiscard]] std::vector<pid_t> CriuIds(const std::vector<CriuTask>& tree);

// One regular file of files.img.
struct CriuFile {
  std::uint32_t id = 0;
  std::uint32_t flags = 0;  // as open(2) takes them
  std::string path;
  // What CRIU compares at restore; absent where it does not (append-only
  // files, directories, devices).
  std::optional<std::uint64_t> size_bytes;
  bool has_build_id = false;  // a program or library; CRIU compares the id
  // Removed while open: the image holds its content, or a link remap keeps it,
  // so nothing is expected at `path`. Set by ReadCriuFiles alone.
  bool removed = false;
};
Result<std::vector<CriuFile>> ReadCriuFiles(const std::string& directory);

// Content of files.img after `adjust` has seen every regular file: a changed
// path or size_bytes (to another value, never to none) is written, everything
// else is kept byte for byte. `changed` counts the entries that differ.
Result<std::string> AdjustCriuFiles(
    const std::string& directory,
    const std::function<void(CriuFile* file)>& adjust, std::size_t* changed);

// Paths of the temporary hard links that CRIU made for files that were removed
// while open but have other names ("link_remap.N" beside the removed name).
// CRIU removes them when the dumped tree runs on; without them the image
// cannot be restored.
Result<std::vector<std::string>> ReadCriuLinkRemaps(
    const std::string& directory);

// stats-dump: what CRIU measured. Zeros when the file is not there.
struct CriuDumpStats {
  std::uint64_t freezing_us = 0;  // from the first to the last task stopped
  std::uint64_t frozen_us = 0;    // stopped, time in notifications included
  std::uint64_t pages_written = 0;
};
[[nodiscard]] CriuDumpStats ReadCriuDumpStats(const std::string& directory);

// Decoders of a whole file's content, for tests and fuzzing.
Result<std::vector<CriuTask>> DecodeCriuTree(std::string_view content);
Result<std::vector<CriuFile>> DecodeCriuFiles(std::string_view content);
Result<std::string> AdjustCriuFilesContent(
    std::string_view content, const std::function<void(CriuFile* file)>& adjust,
    std::size_t* changed);

}  // namespace pos

#endif  // CKPT_CRIU_IMAGES_H_
