// The client library's place below the state directory.
#ifndef POS_DAEMON_SHIM_INSTALL_H_
#define POS_DAEMON_SHIM_INSTALL_H_

#include <string>

#include "pos/base/status.h"

namespace pos {

// Makes `directory` with a copy of `source` as libcuda.so.1, and libcuda.so,
// by which some programs ask for it. A copy that is there stays as it is; what
// a call that was cut off left out is added. Blocking: reads and writes the
// library, some MB.
Status InstallShimFiles(const std::string& source,
                        const std::string& directory);

}  // namespace pos

#endif  // POS_DAEMON_SHIM_INSTALL_H_
