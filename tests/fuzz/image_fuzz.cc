// The readers of stored images on arbitrary bytes: they may refuse, never
// crash, read outside their input or use memory without a bound.
//
// The first byte chooses the reader. The record files are read twice: as they
// are, and with checksums, header and end record made right, since otherwise
// nearly every input would stop at a checksum.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "accepted.h"
#include "ckpt/format/chunk_index.h"
#include "ckpt/format/digest.h"
#include "ckpt/format/known.h"
#include "ckpt/format/manifest.h"
#include "ckpt/format/pack_header.h"
#include "ckpt/format/record.h"
#include "ckpt/pack/codec.h"
#include "ckpt/pack/pack_set.h"
#include "planted.h"
#include "pos/base/fd.h"

namespace pos::ckpt {
namespace {

using Bytes = std::vector<std::byte>;

// What a writer would have made of these records.
Bytes Repaired(std::span<const std::byte> file, FileKind kind) {
  const UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  RecordWriter writer(fd.get(), "fuzz", kind, StoreId(), 0);
  std::size_t at = kHeaderBytes;
  while (at + kRecordHeaderBytes <= file.size()) {
    std::uint32_t type = 0;
    std::uint16_t flags = 0;
    std::uint64_t length = 0;
    std::memcpy(&type, file.data() + at, sizeof(type));
    std::memcpy(&flags, file.data() + at + 4, sizeof(flags));
    std::memcpy(&length, file.data() + at + 8, sizeof(length));
    at += kRecordHeaderBytes;
    length = std::min<std::uint64_t>(length, file.size() - at);
    if (type == kRecordEnd) break;
    if (!writer.Append(type, flags, file.subspan(at, length)).ok())
      std::abort();
    at = std::min(file.size(), at + (length + 7) / 8 * 8);
  }
  if (!writer.Finish().ok()) std::abort();
  Bytes content(writer.bytes());
  if (!PreadFull(fd.get(), content, 0, "fuzz").ok()) std::abort();
  return content;
}

// Whether it is a manifest.
bool TryManifest(std::span<const std::byte> bytes) {
  SpanSource source(bytes);
  const Result<Manifest> manifest = ReadManifest(&source, "fuzz");
  if (!manifest.ok()) return false;
  fuzz::PlantedBug(manifest->totals.rounds > 0xffff);
  // What was accepted can be written, and reads as the same.
  const UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  if (!WriteManifest(*manifest, StoreId(), fd.get(), "fuzz").ok()) std::abort();
  auto again = FdSource::Open(fd.get(), "fuzz");
  const Result<Manifest> copy = ReadManifest(again->get(), "fuzz");
  if (!copy.ok() || !(*copy == *manifest)) std::abort();
  return true;
}

void TryIndex(std::span<const std::byte> bytes) {
  SpanSource source(bytes);
  auto reader = IndexReader::Open(&source, "fuzz");
  if (!reader.ok()) return;
  std::uint64_t covered = 0;
  for (;;) {
    const Result<IndexReader::What> what = (*reader)->Next();
    if (!what.ok()) return;
    if (*what == IndexReader::What::kEnd) return;
    if (*what == IndexReader::What::kRegion) {
      covered = 0;
      continue;
    }
    const ChunkEntry& entry = (*reader)->entry();
    if (entry.offset != covered) std::abort();
    covered += entry.bytes;
    if (covered > (*reader)->region().bytes) std::abort();
    if (!entry.zero() && (entry.ref.pack >= (*reader)->packs().size() ||
                          entry.ref.stored > kMaxChunkBytes)) {
      std::abort();
    }
  }
}

void TryPackHeader(std::span<const std::byte> bytes) {
  (void)DecodePackHeader(bytes, "fuzz");
  Bytes block(bytes.begin(), bytes.end());
  block.resize(kBlockBytes);
  const std::uint64_t sum = Sum64(std::span(block).first(kBlockBytes - 8));
  std::memcpy(block.data() + kBlockBytes - 8, &sum, sizeof(sum));
  (void)DecodePackHeader(block, "fuzz");
}

void TryKnown(std::span<const std::byte> bytes) {
  Bytes file(bytes.begin(), bytes.end());
  if (file.size() >= kHeaderBytes) {
    const auto header = EncodeHeader(FileKind::kKnown, StoreId(), 0);
    std::copy(header.begin(), header.end(), file.begin());
  }
  const UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  if (!PwriteFull(fd.get(), file, 0, "fuzz").ok()) std::abort();
  auto table = KnownTable::Open(fd.get(), "fuzz");
  if (!table.ok()) return;
  for (std::size_t at = 0; at + sizeof(Digest) <= file.size(); at += 16) {
    Digest digest;
    std::memcpy(digest.bytes.data(), file.data() + at, sizeof(digest));
    (void)(*table)->Find(digest);
  }
}

// A chunk's stored bytes, with every checksum right but the digest.
void TryChunk(std::span<const std::byte> bytes) {
  if (bytes.size() < 4) return;
  ChunkRef ref;
  ref.place = kBlockBytes;
  ref.codec = static_cast<Codec>(std::to_integer<unsigned>(bytes[0]) % 3);
  std::uint16_t size = 0;
  std::memcpy(&size, bytes.data() + 1, sizeof(size));
  const auto body =
      bytes.subspan(3, std::min(bytes.size() - 3, kMinChunkBytes));
  ref.stored = static_cast<std::uint32_t>(body.size());
  ref.bytes = ref.codec == Codec::kNone ? ref.stored : size + 1u;
  if (ref.codec != Codec::kNone) ref.sum = Sum64(body);
  Bytes stored(body.begin(), body.end());
  stored.resize(StoredBlocksBytes(ref));
  Bytes out(ref.bytes);
  Decompressor decompressor;
  (void)UnpackChunk(ref, DigestKey(1), stored, out, &decompressor);
}

}  // namespace
}  // namespace pos::ckpt

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data,
                                               std::size_t size,
                                               std::size_t max_size,
                                               unsigned seed) {
  return pos::fuzz::AcceptedInputs().Mutate(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  using pos::ckpt::FileKind;
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
  switch (data[0] % 5) {
    case 0:
      pos::ckpt::TryManifest(bytes);
      if (pos::ckpt::TryManifest(
              pos::ckpt::Repaired(bytes, FileKind::kManifest))) {
        pos::fuzz::AcceptedInputs().Add(
            {reinterpret_cast<const char*>(data), size});
      }
      break;
    case 1:
      pos::ckpt::TryIndex(bytes);
      pos::ckpt::TryIndex(pos::ckpt::Repaired(bytes, FileKind::kIndex));
      break;
    case 2:
      pos::ckpt::TryPackHeader(bytes);
      break;
    case 3:
      pos::ckpt::TryKnown(bytes);
      break;
    default:
      pos::ckpt::TryChunk(bytes);
      break;
  }
  return 0;
}
