// The table of known chunks for one checkpoint, from the indexes of the
// owner's images.
#ifndef CKPT_STORE_KNOWN_BUILD_H_
#define CKPT_STORE_KNOWN_BUILD_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ckpt/format/id.h"
#include "ckpt/format/manifest.h"
#include "ckpt/store/store.h"
#include "pos/base/status.h"

namespace pos::ckpt {

// Where BuildKnownTable finds images.
struct KnownSource {
  std::function<Result<Manifest>(const std::string& image)> manifest_of;
  std::function<std::string(const std::string& image)> directory_of;
};

// Writes the table to `fd`. `images`: whose chunks are worth most, first. An
// image that cannot be read only offers nothing.
Status BuildKnownTable(const std::vector<ImageSummary>& images,
                       const KnownSource& source, const StoreOptions& options,
                       std::uint64_t digest_seed, const StoreId& store, int fd);

}  // namespace pos::ckpt

#endif  // CKPT_STORE_KNOWN_BUILD_H_
