#include "ckpt/store/image.h"

#include <fcntl.h>

#include <algorithm>

#include "ckpt/format/pack_header.h"
#include "pos/base/files.h"

namespace pos::ckpt {

Result<SessionReadFiles> ImageHandle::OpenSession(std::uint32_t number) const {
  const auto session = std::find_if(
      manifest_.sessions.begin(), manifest_.sessions.end(),
      [number](const SessionRecord& s) { return s.number == number; });
  if (session == manifest_.sessions.end()) {
    return NoSuch("image " + manifest_.image + " has no session " +
                  std::to_string(number));
  }
  SessionReadFiles files;
  POS_ASSIGN_OR_RETURN(
      files.index, OpenFile(JoinPath(directory_, session->index), O_RDONLY));
  for (const std::uint32_t position : session->packs) {
    const PackId& pack = manifest_.packs[position].pack;
    const std::string path =
        JoinPath(pack_directory_, PackName(pack) + ".pack");
    POS_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY));
    std::vector<std::byte> block(kBlockBytes);
    POS_RETURN_IF_ERROR(PreadFull(fd.get(), block, 0, path));
    POS_ASSIGN_OR_RETURN(const PackHeader header,
                         DecodePackHeader(block, path));
    if (header.owner_uid != manifest_.owner_uid) {
      return Corrupt("image " + manifest_.image + " names pack " +
                     PackName(pack) + " of another owner");
    }
    files.packs.emplace_back(pack, std::move(fd));
  }
  return files;
}

}  // namespace pos::ckpt
