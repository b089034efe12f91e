#include "ckpt/store/export.h"

#include <fcntl.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "ckpt/pack/pack_set.h"
#include "ckpt/store/export_format.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"

namespace pos::ckpt {
namespace {

class Exporter {
 public:
  Exporter(const ImageHandle& image, const StoreId& store, const Secret& key,
           ByteSink* sink, const ExportOptions& options)
      : image_(image),
        options_(options),
        created_ms_(WallClockMs()),
        head_(MakeHead(image, key, options.encrypt)),
        writer_(sink, "export of " + image.manifest().image, FileKind::kExport,
                store, created_ms_),
        mac_(key, head_, EncodeHeader(FileKind::kExport, store, created_ms_)) {
    if (options.encrypt) crypt_.emplace(key, head_);
  }

  Result<std::uint64_t> Run() {
    const Manifest& m = image_.manifest();
    POS_RETURN_IF_ERROR(Put(kExportHead, head_.Encode()));
    ExportPart manifest;
    manifest.kind = static_cast<std::uint32_t>(PartKind::kManifest);
    POS_RETURN_IF_ERROR(PutFile(manifest, "manifest", nullptr));
    for (const SessionRecord& session : m.sessions) {
      POS_RETURN_IF_ERROR(PutSession(session));
    }
    for (const FileRecord& file : m.files) {
      ExportPart part;
      part.kind = static_cast<std::uint32_t>(PartKind::kFile);
      part.mode = file.mode;
      part.path = file.path;
      POS_RETURN_IF_ERROR(PutFile(part, file.path, &file));
    }
    POS_RETURN_IF_ERROR(writer_.Append(kExportMac, 0, mac_.Finish()));
    POS_RETURN_IF_ERROR(writer_.Finish());
    return writer_.bytes();
  }

 private:
  static ExportHead MakeHead(const ImageHandle& image, const Secret& key,
                             bool encrypt) {
    ExportHead head;
    head.crypt = encrypt ? kExportAes256Gcm : kExportPlain;
    RandomBytes(head.salt);
    head.key_id = IdOf(key);
    head.owner_uid = image.manifest().owner_uid;
    head.image = image.manifest().image;
    return head;
  }

  Status Put(std::uint32_t type, std::span<const std::byte> payload) {
    if (crypt_ && type != kExportHead) payload = crypt_->Seal(type, payload);
    mac_.Add(type, 0, payload);
    return writer_.Append(type, 0, payload);
  }
  Status PutData(std::span<const std::byte> data) {
    while (!data.empty()) {
      const std::size_t n = std::min(data.size(), kExportDataBytes);
      POS_RETURN_IF_ERROR(Put(kExportData, data.first(n)));
      data = data.subspan(n);
    }
    return {};
  }
  Status Done(std::uint64_t bytes) {
    done_ += bytes;
    return options_.progress ? options_.progress(done_) : Status();
  }

  Status PutFile(ExportPart part, const std::string& path,
                 const FileRecord* record) {
    const std::string full = JoinPath(image_.directory(), path);
    POS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(full, O_RDONLY));
    POS_ASSIGN_OR_RETURN(part.bytes, FileSize(full));
    POS_RETURN_IF_ERROR(Put(kExportPart, part.Encode()));
    const DigestKey key(image_.manifest().digest_seed);
    DigestStream digest(key);
    std::vector<std::byte> buffer(
        std::min<std::uint64_t>(part.bytes, kExportDataBytes));
    for (std::uint64_t at = 0; at < part.bytes;) {
      const std::uint64_t n =
          std::min<std::uint64_t>(buffer.size(), part.bytes - at);
      const std::span<std::byte> piece = std::span(buffer).first(n);
      POS_RETURN_IF_ERROR(PreadFull(fd.get(), piece, at, full));
      digest.Update(piece);
      POS_RETURN_IF_ERROR(Put(kExportData, piece));
      POS_RETURN_IF_ERROR(Done(n));
      at += n;
    }
    if (record != nullptr && digest.Finish() != record->digest) {
      return Corrupt(path + " is not what was written");
    }
    return {};
  }

  Status PutSession(const SessionRecord& session) {
    ExportPart part;
    part.kind = static_cast<std::uint32_t>(PartKind::kSession);
    part.number = session.number;
    POS_RETURN_IF_ERROR(Put(kExportPart, part.Encode()));
    POS_ASSIGN_OR_RETURN(SessionReadFiles files,
                         image_.OpenSession(session.number));
    PackSet packs;
    for (auto& [id, fd] : files.packs) {
      POS_RETURN_IF_ERROR(packs.Add(id, std::move(fd), /*direct=*/false));
    }
    POS_ASSIGN_OR_RETURN(const std::unique_ptr<FdSource> source,
                         FdSource::Open(files.index.get(), session.index));
    POS_ASSIGN_OR_RETURN(const std::unique_ptr<IndexReader> index,
                         IndexReader::Open(source.get(), session.index));
    for (;;) {
      POS_ASSIGN_OR_RETURN(const IndexReader::What what, index->Next());
      if (what == IndexReader::What::kEnd) return {};
      if (what == IndexReader::What::kRegion) {
        POS_RETURN_IF_ERROR(Put(kExportRegion, EncodeRegion(index->region())));
      } else {
        POS_RETURN_IF_ERROR(
            PutChunk(*index, packs, index->entry())
                .WithContext("session " + std::to_string(session.number)));
      }
    }
  }

  Status PutChunk(const IndexReader& index, const PackSet& packs,
                  const ChunkEntry& entry) {
    ExportChunk chunk;
    chunk.bytes = entry.bytes;
    chunk.rank = entry.rank;
    if (entry.zero()) return Put(kExportChunk, chunk.Encode());
    const ChunkRef& ref = entry.ref;
    const PackId& id = index.packs()[ref.pack];
    POS_ASSIGN_OR_RETURN(const PackFile* const pack,
                         packs.Find(id, ref, image_.manifest().digest_seed));
    stored_.resize(StoredBlocksBytes(ref));
    unpacked_.resize(image_.manifest().chunk_bytes);
    POS_RETURN_IF_ERROR(
        PreadFull(pack->fd.get(), stored_, ref.place, "pack " + PackName(id)));
    const DigestKey key(image_.manifest().digest_seed);
    POS_RETURN_IF_ERROR(
        UnpackChunk(ref, key, stored_, unpacked_, &decompressor_).status());
    chunk.stored = ref.stored;
    chunk.codec = static_cast<std::uint8_t>(ref.codec);
    chunk.digest = ref.digest;
    chunk.sum = ref.sum;
    POS_RETURN_IF_ERROR(Put(kExportChunk, chunk.Encode()));
    POS_RETURN_IF_ERROR(PutData(std::span(stored_).first(ref.stored)));
    return Done(entry.bytes);
  }

  const ImageHandle& image_;
  const ExportOptions& options_;
  const std::uint64_t created_ms_;
  const ExportHead head_;
  RecordWriter writer_;
  ExportMac mac_;
  std::optional<ExportCrypt> crypt_;
  Decompressor decompressor_;
  std::vector<std::byte> stored_;
  std::vector<std::byte> unpacked_;
  std::uint64_t done_ = 0;
};

}  // namespace

Result<std::uint64_t> ExportImage(const ImageHandle& image,
                                  const StoreId& store, const Secret& key,
                                  ByteSink* sink,
                                  const ExportOptions& options) {
  return Exporter(image, store, key, sink, options).Run();
}

}  // namespace pos::ckpt
