// A sealed image that is being read, held by a lease.
//
// Threads: any; it is immutable.
#ifndef CKPT_STORE_IMAGE_H_
#define CKPT_STORE_IMAGE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ckpt/format/id.h"
#include "ckpt/format/manifest.h"
#include "ckpt/pack/pack_set.h"
#include "ckpt/store/store.h"
#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos::ckpt {

// What posd gives the runner that restores a session: read-only descriptors.
// The runner makes an IndexReader and a PackSet of them.
struct SessionReadFiles {
  UniqueFd index;
  std::vector<std::pair<PackId, UniqueFd>> packs;
};

class ImageHandle {
 public:
  [[nodiscard]] const Manifest& manifest() const { return manifest_; }
  // Where its files are (criu/…).
  [[nodiscard]] const std::string& directory() const { return directory_; }
  // kNoSuch for a number that is not in the manifest; kCorrupt for a pack of
  // another owner.
  Result<SessionReadFiles> OpenSession(std::uint32_t number) const;
  // Reads all files but the packs and compares them with the manifest: who uses
  // them may not notice damage. (Chunks are compared as they are loaded.)
  // kCorrupt, naming the file.
  [[nodiscard]] Status CheckFiles() const;

 private:
  friend class Store;
  ImageHandle(ImageLease lease, Manifest manifest, std::string directory,
              std::string pack_directory)
      : lease_(std::move(lease)),
        manifest_(std::move(manifest)),
        directory_(std::move(directory)),
        pack_directory_(std::move(pack_directory)) {}

  const ImageLease lease_;
  const Manifest manifest_;
  const std::string directory_;
  const std::string pack_directory_;
};

}  // namespace pos::ckpt

#endif  // CKPT_STORE_IMAGE_H_
