#include "ckpt/format/header.h"

#include <algorithm>
#include <cstring>

#include "ckpt/format/digest.h"
#include "pos/base/bytes.h"

namespace pos::ckpt {
namespace {

constexpr std::array<unsigned char, 8> kMagic = {0x89, 'P',  'O',  'S',
                                                 0x0d, 0x0a, 0x1a, 0x0a};
constexpr std::size_t kWriterBytes = 16;
constexpr std::size_t kSummedBytes = kHeaderBytes - sizeof(std::uint64_t);

struct KindRow {
  FileKind kind;
  std::string_view tag;
  std::string_view what;
  std::uint16_t header_bytes;
};

constexpr std::array<KindRow, 7> kKinds = {{
    {FileKind::kManifest, "MANI", "a manifest", kHeaderBytes},
    {FileKind::kIndex, "INDX", "a chunk index", kHeaderBytes},
    {FileKind::kStore, "STOR", "a store's identity", kHeaderBytes},
    {FileKind::kPins, "PINS", "a pin", kHeaderBytes},
    {FileKind::kPack, "PACK", "a pack", kBlockBytes},
    {FileKind::kKnown, "KNOW", "a table of known chunks", kHeaderBytes},
    {FileKind::kExport, "EXPO", "an exported image", kHeaderBytes},
}};

const KindRow& RowOf(FileKind kind) {
  return kKinds[static_cast<std::size_t>(kind)];
}

std::string Printable(std::span<const std::byte> raw) {
  std::string text;
  for (const std::byte b : raw) {
    const char c = static_cast<char>(b);
    if (c == 0) break;
    text += (c >= ' ' && c <= '~') ? c : '?';
  }
  return text;
}

}  // namespace

std::string_view WriterVersion() { return POS_VERSION; }

bool IsChunkBytes(std::uint64_t bytes) {
  return bytes >= kMinChunkBytes && bytes <= kMaxChunkBytes &&
         (bytes & (bytes - 1)) == 0;
}

std::array<std::byte, kHeaderBytes> EncodeHeader(FileKind kind,
                                                 const StoreId& store,
                                                 std::uint64_t created_ms) {
  const KindRow& row = RowOf(kind);
  std::array<char, kWriterBytes> writer{};
  std::copy_n(WriterVersion().begin(),
              std::min(WriterVersion().size(), writer.size() - 1),
              writer.begin());
  ByteWriter out;
  out.Put(kMagic);
  out.PutRaw(std::as_bytes(std::span(row.tag)));
  out.Put(kFormatVersion);
  out.Put(row.header_bytes);
  out.Put(store.bytes);
  out.Put(created_ms);
  out.Put(writer);
  out.Put(Sum64(out.bytes()));
  std::array<std::byte, kHeaderBytes> header;
  std::copy_n(out.bytes().begin(), header.size(), header.begin());
  return header;
}

Result<FileHeader> DecodeHeader(std::span<const std::byte> bytes, FileKind kind,
                                const std::string& name) {
  const KindRow& row = RowOf(kind);
  if (bytes.size() < kHeaderBytes) {
    return Corrupt(name + ": a header has 64 bytes, the file " +
                   std::to_string(bytes.size()));
  }
  ByteReader in(bytes.first(kHeaderBytes));
  if (in.Get<std::array<unsigned char, 8>>() != kMagic) {
    return Corrupt(name +
                   " is not a file of POS: it does not begin with the "
                   "magic bytes");
  }
  const std::span<const std::byte> tag = in.GetRaw(4);
  if (!std::ranges::equal(tag, std::as_bytes(std::span(row.tag)))) {
    return Corrupt(name + " is not " + std::string(row.what) +
                   ": its kind is " + Printable(tag) + ", not " +
                   std::string(row.tag));
  }
  FileHeader header;
  header.kind = kind;
  header.version = in.Get<std::uint16_t>();
  const auto header_bytes = in.Get<std::uint16_t>();
  header.store.bytes = in.Get<decltype(header.store.bytes)>();
  header.created_ms = in.Get<std::uint64_t>();
  header.writer = Printable(in.GetRaw(kWriterBytes));
  // The place of the sum belongs to every version, so damage is told from age.
  if (kind != FileKind::kPack &&
      in.Get<std::uint64_t>() != Sum64(bytes.first(kSummedBytes))) {
    return Corrupt(name + ": the header does not match its checksum");
  }
  if (header.version == 0 || header.version > kFormatVersion) {
    return Incompatible(name + " has format version " +
                            std::to_string(header.version) +
                            " (written by POS " + header.writer +
                            "); this POS knows versions up to " +
                            std::to_string(kFormatVersion),
                        "use a POS at least as new as " + header.writer);
  }
  if (header_bytes != row.header_bytes) {
    return Corrupt(name + ": the header says that it has " +
                   std::to_string(header_bytes) + " bytes, not " +
                   std::to_string(row.header_bytes));
  }
  return header;
}

}  // namespace pos::ckpt
