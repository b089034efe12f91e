#include "pos/daemon/build_id.h"

#include <elf.h>
#include <fcntl.h>

#include <cstring>
#include <span>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/files.h"

namespace pos {
namespace {

std::string FindNote(std::span<const std::byte> notes) {
  ByteReader in(notes);
  while (in.left() >= sizeof(Elf64_Nhdr)) {
    const auto header = in.Get<Elf64_Nhdr>();
    const auto padded = [](std::uint64_t n) { return (n + 3) & ~3ull; };
    const auto name = in.GetRaw(padded(header.n_namesz));
    const auto desc = in.GetRaw(padded(header.n_descsz));
    if (!in.ok()) return {};
    if (header.n_type == NT_GNU_BUILD_ID && header.n_namesz == 4 &&
        std::memcmp(name.data(), "GNU", 4) == 0) {
      return HexBytes(desc.first(header.n_descsz));
    }
  }
  return {};
}

}  // namespace

Result<std::string> ElfBuildId(const std::string& path) {
  POS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  Elf64_Ehdr header;
  POS_RETURN_IF_ERROR(PreadFull(
      fd.get(), std::as_writable_bytes(std::span(&header, 1)), 0, path));
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_phentsize != sizeof(Elf64_Phdr)) {
    return Corrupt(path + " is not a 64-bit ELF file");
  }
  for (int i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    POS_RETURN_IF_ERROR(PreadFull(
        fd.get(), std::as_writable_bytes(std::span(&segment, 1)),
        header.e_phoff + static_cast<std::uint64_t>(i) * sizeof(segment),
        path));
    if (segment.p_type != PT_NOTE || segment.p_filesz > (1u << 20)) continue;
    std::vector<std::byte> notes(segment.p_filesz);
    POS_RETURN_IF_ERROR(PreadFull(fd.get(), notes, segment.p_offset, path));
    std::string id = FindNote(notes);
    if (!id.empty()) return id;
  }
  return Corrupt(path + " has no build id");
}

}  // namespace pos
