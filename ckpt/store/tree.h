// Files of an image's directory: listing, digesting, flushing.
#ifndef CKPT_STORE_TREE_H_
#define CKPT_STORE_TREE_H_

#include <string>
#include <vector>

#include "ckpt/format/digest.h"
#include "ckpt/format/manifest.h"
#include "pos/base/status.h"

namespace pos::ckpt {

struct Tree {
  std::vector<std::string> files;        // relative paths, sorted
  std::vector<std::string> directories;  // without the root
};

// kInvalid for anything but directories and regular files: an image holds
// nothing else. Does not follow links.
Result<Tree> ListTree(const std::string& root);

// Length, mode and digest of a regular file. With `sync`, flushes it first.
Result<FileRecord> DescribeFile(const std::string& root,
                                const std::string& path, const DigestKey& key,
                                bool sync);

// Digest of everything behind a descriptor.
Result<Digest> DigestFile(int fd, const std::string& name, const DigestKey& key,
                          std::uint64_t* bytes);

Status SyncFd(int fd, const std::string& name);

}  // namespace pos::ckpt

#endif  // CKPT_STORE_TREE_H_
