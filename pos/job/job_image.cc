#include "pos/job/job_image.h"

#include <xxhash.h>

#include <cstring>
#include <string_view>

#include "pos/base/bytes.h"
#include "pos/base/files.h"
#include "pos/job/act_as.h"
#include "pos/job/messages.h"

namespace pos::job {
namespace {

constexpr std::string_view kMagic = "POSJOB1\n";
constexpr std::uint64_t kLimitBytes = 64u << 20;

std::uint64_t Hash(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

}  // namespace

Status WriteJobImage(const std::string& directory, const JobImage& image) {
  std::string content(kMagic);
  const std::string message = image.SerializeAsString();
  content += message;
  ByteWriter hash;
  hash.Put(Hash(message));
  content.append(reinterpret_cast<const char*>(hash.bytes().data()),
                 hash.bytes().size());
  return ReplaceFile(JoinPath(directory, kJobImageFile), content);
}

Result<JobImage> ReadJobImage(const std::string& directory) {
  const std::string path = JoinPath(directory, kJobImageFile);
  POS_ASSIGN_OR_RETURN(const std::string content,
                       ReadWholeFile(path, kLimitBytes));
  const std::string_view all = content;
  if (all.size() < kMagic.size() + sizeof(std::uint64_t) ||
      all.substr(0, kMagic.size()) != kMagic) {
    return Corrupt(path + " is not a job image");
  }
  const std::string_view message = all.substr(
      kMagic.size(), all.size() - kMagic.size() - sizeof(std::uint64_t));
  std::uint64_t hash = 0;
  std::memcpy(&hash, all.data() + all.size() - sizeof(hash), sizeof(hash));
  if (hash != Hash(message)) return Corrupt(path + ": wrong checksum");
  return ParseMessage<JobImage>(message);
}

Status RemoveLeftovers(const JobImage& image) {
  const ActAs user(image);
  POS_RETURN_IF_ERROR(user.status());
  Status first;
  for (const LinkRemap& remap : image.link_remap()) {
    const Status status = RemoveFile(remap.kept());
    if (first.ok()) first = status;
  }
  return first;
}

}  // namespace pos::job
