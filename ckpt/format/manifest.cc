#include "ckpt/format/manifest.h"

#include <set>

#include "pos/base/bytes.h"

namespace pos::ckpt {
namespace {

constexpr std::uint32_t kRecordImage = 0x0001;
constexpr std::uint32_t kRecordJob = 0x0002;
constexpr std::uint32_t kRecordHost = 0x0003;
constexpr std::uint32_t kRecordDevice = 0x0004;
constexpr std::uint32_t kRecordTotals = 0x0005;
constexpr std::uint32_t kRecordOpenFile = 0x0006;
constexpr std::uint32_t kRecordSession = 0x0007;
constexpr std::uint32_t kRecordPack = 0x0008;
constexpr std::uint32_t kRecordFile = 0x0009;
constexpr std::uint32_t kRecordAttachment = 0x000a;

// Each record's layout is one function, Fields, applied to an Encoder or a
// Decoder: both see the same fields in the same order.
class Encoder {
 public:
  template <typename T>
  void Scalar(const T& value) {
    out_.Put(value);
  }
  void Text(const std::string& text) { out_.PutString(text); }
  void Texts(const std::vector<std::string>& list) {
    out_.Put(static_cast<std::uint64_t>(list.size()));
    for (const std::string& text : list) out_.PutString(text);
  }
  void Numbers(const std::vector<std::uint32_t>& list) {
    out_.Put(static_cast<std::uint64_t>(list.size()));
    for (const std::uint32_t number : list) out_.Put(number);
  }
  void Flag(bool value) { out_.Put(std::uint32_t{value ? 1u : 0u}); }
  void Zero() { out_.Put(std::uint32_t{0}); }
  [[nodiscard]] std::span<const std::byte> bytes() const {
    return out_.bytes();
  }

 private:
  ByteWriter out_;
};

class Decoder {
 public:
  explicit Decoder(std::span<const std::byte> bytes) : in_(bytes) {}
  template <typename T>
  void Scalar(T& value) {
    value = in_.Get<T>();
  }
  void Text(std::string& text) { text = in_.GetString(); }
  void Texts(std::vector<std::string>& list) {
    // Each element takes at least its length's 8 bytes, so a wild count ends
    // at the payload's end.
    const auto count = in_.Get<std::uint64_t>();
    for (std::uint64_t i = 0; i < count && in_.ok(); ++i) {
      list.push_back(in_.GetString());
    }
  }
  void Numbers(std::vector<std::uint32_t>& list) {
    const auto count = in_.Get<std::uint64_t>();
    for (std::uint64_t i = 0; i < count && in_.ok(); ++i) {
      list.push_back(in_.Get<std::uint32_t>());
    }
  }
  void Flag(bool& value) { value = in_.Get<std::uint32_t>() != 0; }
  void Zero() { in_.Get<std::uint32_t>(); }
  [[nodiscard]] bool ok() const { return in_.ok(); }

 private:
  ByteReader in_;
};

// M is Manifest or const Manifest, and so on: one layout for both directions.
template <typename Codec, typename M>
void ImageFields(Codec& c, M& m, std::uint32_t& digest_id) {
  c.Text(m.image);
  c.Scalar(m.owner_uid);
  c.Scalar(m.owner_gid);
  c.Scalar(m.created_ms);
  c.Scalar(m.mode);
  c.Scalar(digest_id);
  c.Scalar(m.digest_seed);
  c.Scalar(m.chunk_bytes);
  c.Zero();
  c.Text(m.tag);
  c.Text(m.reason);
}

template <typename Codec, typename J>
void JobFields(Codec& c, J& job) {
  c.Text(job.name);
  c.Text(job.cwd);
  c.Texts(job.argv);
  c.Text(job.lineage);
  c.Scalar(job.log_bytes);
  c.Scalar(job.root_ns_pid);
  c.Scalar(job.highest_ns_pid);
  c.Scalar(job.stdio);
  c.Zero();
}

template <typename Codec, typename H>
void HostFields(Codec& c, H& host) {
  c.Text(host.pos_version);
  c.Text(host.kernel);
  c.Text(host.machine);
  c.Text(host.cpu_model);
  c.Text(host.cpu_flags);
  c.Text(host.criu_version);
  c.Text(host.host);
}

template <typename Codec, typename D>
void DeviceFields(Codec& c, D& device) {
  c.Scalar(device.ordinal);
  c.Scalar(device.multiprocessors);
  c.Scalar(device.cc_major);
  c.Scalar(device.cc_minor);
  c.Scalar(device.memory_bytes);
  c.Scalar(device.uuid);
  c.Text(device.kind);
  c.Text(device.name);
  c.Text(device.architecture);
  c.Text(device.driver);
}

template <typename Codec, typename T>
void TotalsFields(Codec& c, T& totals) {
  c.Scalar(totals.stall_ns);
  c.Scalar(totals.cpu_dump_ns);
  c.Scalar(totals.total_ns);
  c.Scalar(totals.live_bytes);
  c.Scalar(totals.copied_bytes);
  c.Scalar(totals.written_bytes);
  c.Scalar(totals.chunks);
  c.Scalar(totals.zero_bytes);
  c.Scalar(totals.reused_bytes);
  c.Scalar(totals.unforeseen_chunks);
  c.Scalar(totals.rounds);
}

template <typename Codec, typename F>
void OpenFileFields(Codec& c, F& file) {
  c.Scalar(file.bytes);
  c.Scalar(file.mtime_ns);
  c.Scalar(file.flags);
  c.Zero();
  c.Text(file.path);
}

template <typename Codec, typename S>
void SessionFields(Codec& c, S& session) {
  c.Scalar(session.number);
  c.Scalar(session.client_ns_pid);
  c.Scalar(session.live_bytes);
  c.Scalar(session.chunks);
  c.Scalar(session.zero_bytes);
  c.Scalar(session.own_stored_bytes);
  c.Scalar(session.arena_base);
  c.Scalar(session.arena_bytes);
  c.Scalar(session.window_base);
  c.Scalar(session.window_bytes);
  c.Scalar(session.index_bytes);
  c.Scalar(session.index_digest);
  c.Numbers(session.devices);
  c.Numbers(session.packs);
  c.Text(session.name);
  c.Text(session.index);
  c.Text(session.shim_build_id);
}

template <typename Codec, typename P>
void PackFields(Codec& c, P& pack) {
  c.Scalar(pack.pack);
  c.Scalar(pack.file_bytes);
  c.Scalar(pack.chunks);
  c.Scalar(pack.stored_bytes);
  c.Flag(pack.own);
  c.Zero();
}

template <typename Codec, typename F>
void FileFields(Codec& c, F& file) {
  c.Scalar(file.bytes);
  c.Scalar(file.mode);
  c.Zero();  // crypt
  c.Scalar(file.digest);
  c.Text(file.path);
}

template <typename Codec, typename A>
void AttachmentFields(Codec& c, A& attachment) {
  c.Text(attachment.name);
  c.Text(attachment.value);
}

// nullptr, or why no such manifest may be written or believed.
const char* CheckManifest(const Manifest& m) {
  if (!IsImageId(m.image)) return "the image's id is not one";
  if (m.mode < CheckpointMode::kStop || m.mode > CheckpointMode::kRecopy) {
    return "the mode is unknown";
  }
  if (!IsChunkBytes(m.chunk_bytes)) return "chunk_bytes is not allowed";
  std::set<std::string_view> names;
  for (const SessionRecord& session : m.sessions) {
    if (session.index.find('/') != std::string::npos ||
        !IsInnerPath(session.index) || session.index == "manifest" ||
        !names.insert(session.index).second) {
      return "an index has no usable name of its own";
    }
    for (const std::uint32_t pack : session.packs) {
      if (pack >= m.packs.size()) return "a session names a pack not there";
    }
  }
  for (const FileRecord& file : m.files) {
    if (!IsInnerPath(file.path) || file.path == "manifest" ||
        !names.insert(file.path).second) {
      return "a file has no usable path of its own";
    }
  }
  std::set<PackId> packs;
  for (const PackRecord& pack : m.packs) {
    if (!packs.insert(pack.pack).second) return "a pack is named twice";
  }
  return nullptr;
}

// Reads records into a manifest.
class Assembler {
 public:
  explicit Assembler(RecordReader* reader) : reader_(reader) {}

  Status Add(const Record& record);
  Result<Manifest> Finish();

 private:
  template <typename T, typename F>
  bool One(const Record& record, T& into, F fields) {
    Decoder decoder(record.payload);
    fields(decoder, into);
    return decoder.ok();
  }
  template <typename T, typename F>
  bool More(const Record& record, std::vector<T>& list, F fields) {
    return One(record, list.emplace_back(), fields);
  }

  RecordReader* const reader_;
  Manifest m_;
  std::set<std::uint32_t> single_;  // types seen that do not repeat
  std::uint32_t digest_id_ = kDigestTreeXxh3;
};

Status Assembler::Add(const Record& record) {
  if (record.type == kRecordImage || record.type == kRecordJob ||
      record.type == kRecordHost || record.type == kRecordTotals) {
    if (!single_.insert(record.type).second) {
      return reader_->BadRecord(record, "it is there twice");
    }
  }
  if (!single_.contains(kRecordImage)) {
    return reader_->BadRecord(record, "IMAGE is not the first record");
  }
  bool ok = true;
  switch (record.type) {
    case kRecordImage:
      ok = One(record, m_, [this](Decoder& c, Manifest& m) {
        ImageFields(c, m, digest_id_);
      });
      break;
    case kRecordJob:
      ok = One(record, m_.job, JobFields<Decoder, JobInfo>);
      break;
    case kRecordHost:
      ok = One(record, m_.host, HostFields<Decoder, HostInfo>);
      break;
    case kRecordDevice:
      ok = More(record, m_.devices, DeviceFields<Decoder, DeviceRecord>);
      break;
    case kRecordTotals:
      ok = One(record, m_.totals, TotalsFields<Decoder, Totals>);
      break;
    case kRecordOpenFile:
      ok = More(record, m_.open_files, OpenFileFields<Decoder, OpenFileRecord>);
      break;
    case kRecordSession:
      ok = More(record, m_.sessions, SessionFields<Decoder, SessionRecord>);
      break;
    case kRecordPack:
      ok = More(record, m_.packs, PackFields<Decoder, PackRecord>);
      break;
    case kRecordFile:
      ok = More(record, m_.files, FileFields<Decoder, FileRecord>);
      break;
    case kRecordAttachment:
      ok = More(record, m_.attachments, AttachmentFields<Decoder, Attachment>);
      break;
    default:
      if (!record.optional) return reader_->UnknownRecord(record);
  }
  return ok ? Status() : reader_->BadRecord(record, "it is too short");
}

Result<Manifest> Assembler::Finish() {
  if (single_.size() != 4) {
    return Corrupt(reader_->name() + ": IMAGE, JOB, HOST or TOTALS is missing");
  }
  if (digest_id_ != kDigestTreeXxh3) {
    return Incompatible(reader_->name() + " uses digest " +
                        std::to_string(digest_id_) + "; this POS knows 1");
  }
  if (const char* wrong = CheckManifest(m_); wrong != nullptr) {
    return Corrupt(reader_->name() + ": " + wrong);
  }
  return std::move(m_);
}

template <typename T, typename F>
Status PutRecord(RecordWriter* out, std::uint32_t type, const T& value,
                 F fields) {
  Encoder encoder;
  fields(encoder, value);
  return out->Append(type, 0, encoder.bytes());
}

template <typename T, typename F>
Status PutRecords(RecordWriter* out, std::uint32_t type,
                  const std::vector<T>& list, F fields) {
  for (const T& value : list) {
    POS_RETURN_IF_ERROR(PutRecord(out, type, value, fields));
  }
  return {};
}

}  // namespace

std::string_view CheckpointModeName(CheckpointMode mode) {
  switch (mode) {
    case CheckpointMode::kStop:
      return "stop";
    case CheckpointMode::kCow:
      return "cow";
    case CheckpointMode::kRecopy:
      return "recopy";
  }
  return "unknown";
}

bool IsInnerPath(std::string_view path) {
  if (path.find('\0') != std::string_view::npos) return false;
  for (;;) {
    const std::size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

Status WriteManifest(const Manifest& manifest, const StoreId& store, int fd,
                     const std::string& name) {
  if (const char* wrong = CheckManifest(manifest); wrong != nullptr) {
    return Invalid(name + ": " + wrong);
  }
  RecordWriter out(fd, name, FileKind::kManifest, store, manifest.created_ms);
  const Manifest& m = manifest;
  std::uint32_t digest_id = kDigestTreeXxh3;
  POS_RETURN_IF_ERROR(PutRecord(
      &out, kRecordImage, m, [&digest_id](Encoder& c, const Manifest& value) {
        ImageFields(c, value, digest_id);
      }));
  POS_RETURN_IF_ERROR(
      PutRecord(&out, kRecordJob, m.job, JobFields<Encoder, const JobInfo>));
  POS_RETURN_IF_ERROR(PutRecord(&out, kRecordHost, m.host,
                                HostFields<Encoder, const HostInfo>));
  POS_RETURN_IF_ERROR(PutRecord(&out, kRecordTotals, m.totals,
                                TotalsFields<Encoder, const Totals>));
  POS_RETURN_IF_ERROR(PutRecords(&out, kRecordDevice, m.devices,
                                 DeviceFields<Encoder, const DeviceRecord>));
  POS_RETURN_IF_ERROR(PutRecords(&out, kRecordSession, m.sessions,
                                 SessionFields<Encoder, const SessionRecord>));
  POS_RETURN_IF_ERROR(PutRecords(&out, kRecordPack, m.packs,
                                 PackFields<Encoder, const PackRecord>));
  POS_RETURN_IF_ERROR(PutRecords(&out, kRecordFile, m.files,
                                 FileFields<Encoder, const FileRecord>));
  POS_RETURN_IF_ERROR(
      PutRecords(&out, kRecordOpenFile, m.open_files,
                 OpenFileFields<Encoder, const OpenFileRecord>));
  POS_RETURN_IF_ERROR(PutRecords(&out, kRecordAttachment, m.attachments,
                                 AttachmentFields<Encoder, const Attachment>));
  POS_RETURN_IF_ERROR(out.Finish());
  if (out.bytes() > kMaxManifestBytes) {
    return Invalid(name + ": a manifest has at most " +
                   std::to_string(kMaxManifestBytes) + " bytes, this one " +
                   std::to_string(out.bytes()));
  }
  return {};
}

Result<Manifest> ReadManifest(ByteSource* source, const std::string& name,
                              FileHeader* header) {
  if (source->size() > kMaxManifestBytes) {
    return Corrupt(name + ": a manifest has at most " +
                   std::to_string(kMaxManifestBytes) + " bytes, this one " +
                   std::to_string(source->size()));
  }
  POS_ASSIGN_OR_RETURN(std::unique_ptr<RecordReader> reader,
                       RecordReader::Open(source, FileKind::kManifest, name));
  if (header != nullptr) *header = reader->header();
  Assembler assembler(reader.get());
  for (Record record;;) {
    POS_ASSIGN_OR_RETURN(const bool any, reader->Next(&record));
    if (!any) return assembler.Finish();
    POS_RETURN_IF_ERROR(assembler.Add(record));
  }
}

}  // namespace pos::ckpt
