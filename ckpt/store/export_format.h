// The records of an exported image. ckpt/FORMAT.md, "Export".
//
// Threads: values.
#ifndef CKPT_STORE_EXPORT_FORMAT_H_
#define CKPT_STORE_EXPORT_FORMAT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ckpt/crypt/aead.h"
#include "ckpt/crypt/secret.h"
#include "ckpt/format/chunk_index.h"
#include "ckpt/format/record.h"
#include "pos/base/bytes.h"
#include "pos/base/status.h"

namespace pos::ckpt {

enum ExportRecord : std::uint32_t {
  kExportHead = 0x0401,
  kExportPart = 0x0402,
  kExportChunk = 0x0403,
  kExportData = 0x0404,
  kExportMac = 0x0405,
  kExportRegion = 0x0103,  // as in an index
};

inline constexpr std::size_t kExportDataBytes = 1u << 20;
inline constexpr std::size_t kMaxRegionName = 4096;
// What the keys of the MAC and of the encryption are derived for.
inline constexpr const char* kExportMacUse = "pos export mac";
inline constexpr const char* kExportDataUse = "pos export data";
inline constexpr std::uint32_t kExportPlain = 0;
inline constexpr std::uint32_t kExportAes256Gcm = 1;

struct ExportHead {
  std::array<std::byte, 32> salt{};
  KeyId key_id{};
  std::uint32_t crypt = 0;
  std::uint32_t owner_uid = 0;
  std::string image;

  [[nodiscard]] std::vector<std::byte> Encode() const;
  // False when it is too short.
  static bool Decode(std::span<const std::byte> payload, ExportHead* head);
};

enum class PartKind : std::uint32_t { kManifest = 1, kSession = 2, kFile = 3 };

struct ExportPart {
  std::uint32_t kind = 0;
  std::uint32_t number = 0;  // of a session
  std::uint32_t mode = 0;    // of a file
  std::uint64_t bytes = 0;   // of manifest and file
  std::string path;          // of a file

  [[nodiscard]] std::vector<std::byte> Encode() const;
  static bool Decode(std::span<const std::byte> payload, ExportPart* part);
};

struct ExportChunk {
  std::uint64_t bytes = 0;   // of memory
  std::uint32_t stored = 0;  // bytes of DATA; 0: zeros
  std::uint8_t codec = 0;
  std::uint32_t rank = 0;
  Digest digest;
  std::uint64_t sum = 0;

  [[nodiscard]] std::vector<std::byte> Encode() const;
  static bool Decode(std::span<const std::byte> payload, ExportChunk* chunk);
};

[[nodiscard]] std::vector<std::byte> EncodeRegion(const Region& region);
bool DecodeRegion(std::span<const std::byte> payload, Region* region);

// What a stream's MAC covers: its header, then of every record before the MAC
// what says what it is, and its payload.
class ExportMac {
 public:
  ExportMac(const Secret& key, const ExportHead& head,
            std::span<const std::byte> file_header);
  void Add(std::uint32_t type, std::uint16_t flags,
           std::span<const std::byte> payload);
  [[nodiscard]] MacBytes Finish() { return mac_.Finish(); }

 private:
  Mac mac_;
};

// Payloads behind EXPORT, sealed one by one in the order of the records.
class ExportCrypt {
 public:
  ExportCrypt(const Secret& key, const ExportHead& head)
      : aead_(Derive(key, head.salt, kExportDataUse)) {}

  // The payload as it goes into the file; valid until the next call.
  [[nodiscard]] std::span<const std::byte> Seal(
      std::uint32_t type, std::span<const std::byte> payload);
  // The inverse. kCorrupt for what was not sealed so.
  Result<std::span<const std::byte>> Open(std::uint32_t type,
                                          std::span<const std::byte> payload);

 private:
  Aead aead_;
  std::uint64_t number_ = 0;  // of the next record
  std::vector<std::byte> buffer_;
};

}  // namespace pos::ckpt

#endif  // CKPT_STORE_EXPORT_FORMAT_H_
