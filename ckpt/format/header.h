// The first 64 bytes of every file of the format: what it is, which version,
// who wrote it. ckpt/FORMAT.md, "Record files".
//
// Errors: kCorrupt for bytes that no POS wrote, kIncompatible for a version
//   that this one does not know.
#ifndef CKPT_FORMAT_HEADER_H_
#define CKPT_FORMAT_HEADER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ckpt/format/id.h"
#include "pos/base/status.h"

namespace pos::ckpt {

inline constexpr std::uint16_t kFormatVersion = 1;
inline constexpr std::size_t kHeaderBytes = 64;
inline constexpr std::size_t kMinChunkBytes = 64u << 10;
inline constexpr std::size_t kMaxChunkBytes = 16u << 20;

enum class FileKind {
  kManifest,
  kIndex,
  kStore,
  kPins,
  kPack,
  kKnown,
  kExport
};

struct FileHeader {
  FileKind kind = FileKind::kManifest;
  std::uint16_t version = kFormatVersion;
  StoreId store;
  std::uint64_t created_ms = 0;
  std::string writer;  // version of POS that wrote the file
};

// The version of this POS, for the field `writer`.
[[nodiscard]] std::string_view WriterVersion();

// A power of two within the limits.
[[nodiscard]] bool IsChunkBytes(std::uint64_t bytes);

// `header_bytes` is 64, or 4096 for packs, whose sum lies elsewhere: they use
// the first 56 bytes.
[[nodiscard]] std::array<std::byte, kHeaderBytes> EncodeHeader(
    FileKind kind, const StoreId& store, std::uint64_t created_ms);
// `bytes` has at least 64. Checks magic, kind, version and, except for packs,
// the sum. `name` is the file's in errors.
Result<FileHeader> DecodeHeader(std::span<const std::byte> bytes, FileKind kind,
                                const std::string& name);

}  // namespace pos::ckpt

#endif  // CKPT_FORMAT_HEADER_H_
