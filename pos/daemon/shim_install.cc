#include "pos/daemon/shim_install.h"

#include <unistd.h>

#include <cerrno>

#include "pos/base/files.h"

namespace pos {

Status InstallShimFiles(const std::string& source,
                        const std::string& directory) {
  const std::string library = JoinPath(directory, "libcuda.so.1");
  if (!PathExists(library)) {
    POS_RETURN_IF_ERROR(MakeDirectories(directory, 0755));
    POS_ASSIGN_OR_RETURN(const std::string content,
                         ReadWholeFile(source, 256u << 20));
    POS_RETURN_IF_ERROR(ReplaceFile(library, content, 0755));
  }
  const std::string plain = JoinPath(directory, "libcuda.so");
  if (::symlink("libcuda.so.1", plain.c_str()) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, plain);
  }
  return {};
}

}  // namespace pos
