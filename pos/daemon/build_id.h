// The build id of an ELF file (NT_GNU_BUILD_ID), in hexadecimal.
#ifndef POS_DAEMON_BUILD_ID_H_
#define POS_DAEMON_BUILD_ID_H_

#include <string>

#include "pos/base/status.h"

namespace pos {

// kCorrupt for a file that is no 64-bit ELF file or has no build id.
Result<std::string> ElfBuildId(const std::string& path);

}  // namespace pos

#endif  // POS_DAEMON_BUILD_ID_H_
