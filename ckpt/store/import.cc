#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <utility>

#include "ckpt/store/draft.h"
#include "ckpt/store/export.h"
#include "ckpt/store/export_format.h"
#include "ckpt/store/import_session.h"
#include "pos/base/bytes.h"
#include "pos/base/files.h"

namespace pos::ckpt {
namespace {

constexpr const char* kName = "the exported image";

class Importer {
 public:
  Importer(Store* store, ByteFeed* feed, const ImportOptions& options)
      : store_(store), feed_(feed), options_(options) {}
  Result<ImportReport> Run();

 private:
  Status OnRecord(Record record);
  Status OnPlain(const Record& record);
  Status OnHead(const Record& record);
  Status OnPart(const Record& record);
  Status OnData(const Record& record);
  Status OnMac(const Record& record);
  // Of the part that is being read.
  Status EndPart();
  Status OnManifest();
  Status BeginSession(const ExportPart& part);
  Status BeginFile(const ExportPart& part);
  Status EndFile();

  Store* const store_;
  ByteFeed* const feed_;
  const ImportOptions& options_;
  std::unique_ptr<RecordStreamReader> reader_;
  ExportHead head_;
  bool has_head_ = false;
  bool has_mac_ = false;
  const Secret* key_ = nullptr;  // that the MAC is under, if known
  std::unique_ptr<ExportMac> mac_;
  std::optional<ExportCrypt> crypt_;
  Manifest manifest_;
  bool has_manifest_ = false;
  std::unique_ptr<Draft> draft_;
  ExportPart part_;
  std::uint64_t left_bytes_ = 0;  // of the part
  std::vector<std::byte> manifest_bytes_;
  std::unique_ptr<SessionImport> session_;
  std::size_t next_session_ = 0;
  std::size_t next_file_ = 0;
  UniqueFd file_;
  std::unique_ptr<DigestKey> source_key_;
  std::unique_ptr<DigestStream> file_digest_;
};

Status Importer::OnHead(const Record& record) {
  if (has_head_ || !ExportHead::Decode(record.payload, &head_)) {
    return reader_->BadRecord(record, "it is too short, or the second");
  }
  has_head_ = true;
  if (head_.crypt != kExportPlain && head_.crypt != kExportAes256Gcm) {
    return Incompatible(std::string(kName) + " uses encryption " +
                        std::to_string(head_.crypt) +
                        ", which this POS does not know");
  }
  for (const Secret* key : options_.keys) {
    if (SameMac(IdOf(*key), head_.key_id)) key_ = key;
  }
  if (head_.crypt != kExportPlain && key_ == nullptr) {
    return Denied("the file is encrypted with a key that posd does not have, " +
                      HexBytes(head_.key_id),
                  "configure ckpt.export_key_file as where it was exported");
  }
  if (head_.crypt != kExportPlain) crypt_.emplace(*key_, head_);
  if (options_.owner) {
    if (key_ == nullptr) {
      return Denied(
          "the file was not exported by this posd, nor by one with the same "
          "key",
          "root may import it, or configure ckpt.export_key_file alike on "
          "both sides");
    }
    if (*options_.owner != head_.owner_uid) {
      return Denied("the image belongs to uid " +
                    std::to_string(head_.owner_uid));
    }
  }
  if (key_ != nullptr) {
    mac_ = std::make_unique<ExportMac>(*key_, head_, reader_->header_bytes());
  }
  return {};
}

Status Importer::OnManifest() {
  SpanSource source(manifest_bytes_);
  POS_ASSIGN_OR_RETURN(manifest_,
                       ReadManifest(&source, "the exported manifest"));
  manifest_bytes_ = {};
  has_manifest_ = true;
  if (manifest_.owner_uid != head_.owner_uid ||
      manifest_.image != head_.image) {
    return Corrupt("the manifest is that of another image");
  }
  // The series it was made for goes on without it, if at all: among that one's
  // images it would count as the newest.
  std::erase_if(manifest_.attachments, [](const Attachment& attachment) {
    return attachment.name == kSeriesAttachment;
  });
  source_key_ = std::make_unique<DigestKey>(manifest_.digest_seed);
  DraftOptions options;
  options.owner_uid = manifest_.owner_uid;
  options.owner_gid = manifest_.owner_gid;
  options.job = manifest_.job.name;
  POS_ASSIGN_OR_RETURN(draft_, store_->BeginImage(options));
  return {};
}

Status Importer::BeginSession(const ExportPart& part) {
  if (next_session_ == manifest_.sessions.size() ||
      manifest_.sessions[next_session_].number != part.number) {
    return Corrupt("a session that the manifest does not have there");
  }
  ++next_session_;
  POS_ASSIGN_OR_RETURN(SessionFiles files, draft_->AddSession(part.number));
  POS_ASSIGN_OR_RETURN(
      session_, SessionImport::Create(std::move(files), manifest_.digest_seed,
                                      manifest_.chunk_bytes));
  return {};
}

Status Importer::BeginFile(const ExportPart& part) {
  if (next_file_ == manifest_.files.size() ||
      manifest_.files[next_file_].path != part.path ||
      manifest_.files[next_file_].bytes != part.bytes) {
    return Corrupt("a file that the manifest does not have there");
  }
  if (!IsInnerPath(part.path) || part.path == "manifest") {
    return Corrupt("not the name of a file of an image: " + part.path);
  }
  const std::size_t slash = part.path.rfind('/');
  if (slash != std::string::npos) {
    POS_RETURN_IF_ERROR(
        draft_->MakeDirectory(part.path.substr(0, slash)).status());
  }
  POS_ASSIGN_OR_RETURN(file_, OpenFile(JoinPath(draft_->directory(), part.path),
                                       O_WRONLY | O_CREAT | O_EXCL));
  if (::fchmod(file_.get(), manifest_.files[next_file_].mode & 0777) != 0) {
    return ErrnoStatus(errno, part.path);
  }
  file_digest_ = std::make_unique<DigestStream>(*source_key_);
  return {};
}

Status Importer::EndFile() {
  const FileRecord& wanted = manifest_.files[next_file_++];
  file_.Reset();
  if (file_digest_->Finish() != wanted.digest) {
    return Corrupt(wanted.path + " is not what was written");
  }
  return {};
}

Status Importer::EndPart() {
  if (left_bytes_ != 0) return Corrupt("a part without its end");
  switch (static_cast<PartKind>(std::exchange(part_.kind, 0))) {
    case PartKind::kManifest:
      return OnManifest();
    case PartKind::kSession: {
      const Status status = session_->Finish();
      session_.reset();
      return status;
    }
    case PartKind::kFile:
      return EndFile();
  }
  return {};
}

Status Importer::OnPart(const Record& record) {
  POS_RETURN_IF_ERROR(EndPart());
  ExportPart part;
  if (!has_head_ || !ExportPart::Decode(record.payload, &part)) {
    return reader_->BadRecord(record, "it is too short, or too early");
  }
  const auto kind = static_cast<PartKind>(part.kind);
  const bool first = kind == PartKind::kManifest;
  if (first == has_manifest_) {
    return reader_->BadRecord(record, "the manifest comes first, and once");
  }
  switch (kind) {
    case PartKind::kManifest:
      if (part.bytes > kMaxManifestBytes) {
        return reader_->BadRecord(record, "too large for a manifest");
      }
      left_bytes_ = part.bytes;
      break;
    case PartKind::kSession:
      POS_RETURN_IF_ERROR(BeginSession(part));
      break;
    case PartKind::kFile:
      POS_RETURN_IF_ERROR(BeginFile(part));
      left_bytes_ = part.bytes;
      break;
    default:
      return Incompatible(std::string(kName) + " has parts of kind " +
                          std::to_string(part.kind));
  }
  part_ = part;
  return {};
}

Status Importer::OnData(const Record& record) {
  if (session_ != nullptr) return session_->OnData(record.payload);
  if (record.payload.size() > left_bytes_) {
    return reader_->BadRecord(record, "it is longer than its part");
  }
  left_bytes_ -= record.payload.size();
  if (file_.valid()) {
    file_digest_->Update(record.payload);
    return WriteFull(file_.get(), record.payload, part_.path);
  }
  manifest_bytes_.insert(manifest_bytes_.end(), record.payload.begin(),
                         record.payload.end());
  return {};
}

Status Importer::OnMac(const Record& record) {
  POS_RETURN_IF_ERROR(EndPart());
  has_mac_ = true;
  if (mac_ != nullptr && !SameMac(mac_->Finish(), record.payload)) {
    return Corrupt(std::string(kName) + " was changed: its MAC does not match");
  }
  return {};
}

Status Importer::OnRecord(Record record) {
  if (has_mac_) return reader_->BadRecord(record, "it follows the MAC");
  const auto type = static_cast<ExportRecord>(record.type);
  if (!has_head_ && type != kExportHead) {
    return reader_->BadRecord(record, "EXPORT comes first");
  }
  if (type == kExportHead) POS_RETURN_IF_ERROR(OnHead(record));
  if (type != kExportMac && mac_ != nullptr) {
    mac_->Add(record.type, record.optional ? kRecordOptional : 0,
              record.payload);
  }
  if (crypt_ && type != kExportHead && type != kExportMac) {
    POS_ASSIGN_OR_RETURN(record.payload,
                         crypt_->Open(record.type, record.payload));
  }
  return OnPlain(record);
}

Status Importer::OnPlain(const Record& record) {
  switch (static_cast<ExportRecord>(record.type)) {
    case kExportHead:
      return {};
    case kExportPart:
      return OnPart(record);
    case kExportRegion: {
      Region region;
      if (session_ == nullptr || !DecodeRegion(record.payload, &region)) {
        return reader_->BadRecord(record, "not a region, or not here");
      }
      return session_->OnRegion(region);
    }
    case kExportChunk: {
      ExportChunk chunk;
      if (session_ == nullptr || !ExportChunk::Decode(record.payload, &chunk)) {
        return reader_->BadRecord(record, "not a chunk, or not here");
      }
      return session_->OnChunk(chunk);
    }
    case kExportData:
      return OnData(record);
    case kExportMac:
      return OnMac(record);
  }
  if (record.optional) return {};
  return Incompatible(
      std::string(kName) + " has a record of type " +
          std::to_string(record.type) + ", which this POS does not know",
      "use a POS at least as new as " + reader_->header().writer);
}

Result<ImportReport> Importer::Run() {
  POS_ASSIGN_OR_RETURN(
      reader_, RecordStreamReader::Open(feed_, FileKind::kExport, kName));
  Record record;
  for (;;) {
    POS_ASSIGN_OR_RETURN(const bool any, reader_->Next(&record));
    if (!any) break;
    POS_RETURN_IF_ERROR(OnRecord(record));
    if (options_.progress) {
      POS_RETURN_IF_ERROR(options_.progress(reader_->bytes()));
    }
  }
  if (!has_mac_ || !has_manifest_ ||
      next_session_ != manifest_.sessions.size() ||
      next_file_ != manifest_.files.size()) {
    return Corrupt(std::string(kName) + " is not whole");
  }
  ImportReport report;
  report.source = head_.image;
  report.bytes = reader_->bytes();
  manifest_.reason += (manifest_.reason.empty() ? "" : "; ") +
                      std::string("imported, was ") + head_.image;
  POS_ASSIGN_OR_RETURN(report.manifest, draft_->Seal(std::move(manifest_)));
  return report;
}

}  // namespace

Result<ImportReport> ImportImage(Store* store, ByteFeed* feed,
                                 const ImportOptions& options) {
  return Importer(store, feed, options).Run();
}

}  // namespace pos::ckpt
