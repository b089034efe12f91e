// Cutting and copying single regular files.
//
// Threads: any. Blocking: on the file system.
#ifndef POS_JOB_FILE_COPY_H_
#define POS_JOB_FILE_COPY_H_

#include <cstdint>
#include <string>

#include "pos/base/status.h"

namespace pos::job {

// Does another process have the file open for writing? Asks for a read lease,
// which the kernel grants only when nobody does. False where the file system
// has no leases.
[[nodiscard]] bool IsWrittenByOthers(const std::string& path);

// Cuts a regular file to `size_bytes`. kInvalid when it is shorter.
Status CutFile(const std::string& path, std::uint64_t size_bytes);

// Copies the first `size_bytes` of `from` to the new file `to`, with its mode,
// making directories. Shares blocks where the file system can. On failure `to`
// is removed.
Status CopyFile(const std::string& from, const std::string& to,
                std::uint64_t size_bytes);

}  // namespace pos::job

#endif  // POS_JOB_FILE_COPY_H_
