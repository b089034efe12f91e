// What differs between two images. Memory is compared by digests, place by
// place, without reading a chunk.
#include <algorithm>
#include <memory>
#include <tuple>

#include "ckpt/format/record.h"
#include "ckpt/store/image.h"
#include "ckpt/store/store.h"

namespace pos::ckpt {
namespace {

// Walks over the entries of a session's index.
class Cursor {
 public:
  Status Open(const ImageHandle& image, std::uint32_t session) {
    POS_ASSIGN_OR_RETURN(SessionReadFiles files, image.OpenSession(session));
    fd_ = std::move(files.index);
    const std::string name = "index of image " + image.manifest().image;
    POS_ASSIGN_OR_RETURN(source_, FdSource::Open(fd_.get(), name));
    POS_ASSIGN_OR_RETURN(index_, IndexReader::Open(source_.get(), name));
    return Skip(0);
  }
  [[nodiscard]] bool done() const { return done_; }
  [[nodiscard]] auto key() const {
    const Region& r = index_->region();
    return std::tie(r.kind, r.device, r.address, r.name);
  }
  // Bytes of the current entry that were not skipped.
  [[nodiscard]] std::uint64_t left() const { return left_; }
  [[nodiscard]] const ChunkEntry& entry() const { return index_->entry(); }

  // Passes over `bytes`, at most left().
  Status Skip(std::uint64_t bytes) {
    left_ -= bytes;
    while (left_ == 0 && !done_) {
      POS_ASSIGN_OR_RETURN(const IndexReader::What what, index_->Next());
      done_ = what == IndexReader::What::kEnd;
      if (what == IndexReader::What::kEntry) left_ = index_->entry().bytes;
    }
    return {};
  }

 private:
  UniqueFd fd_;
  std::unique_ptr<FdSource> source_;
  std::unique_ptr<IndexReader> index_;
  std::uint64_t left_ = 0;
  bool done_ = false;
};

bool SameContent(const ChunkEntry& a, const ChunkEntry& b) {
  if (a.zero() || b.zero()) return a.zero() && b.zero();
  return a.bytes == b.bytes && a.ref.digest == b.ref.digest;
}

// Counts what is left of `cursor` into `bytes`.
Status CountRest(Cursor* cursor, std::uint64_t* bytes) {
  while (!cursor->done()) {
    *bytes += cursor->left();
    POS_RETURN_IF_ERROR(cursor->Skip(cursor->left()));
  }
  return {};
}

Status DiffSession(const ImageHandle& a, const ImageHandle& b,
                   std::uint32_t session, DiffReport* report) {
  Cursor in_a;
  Cursor in_b;
  POS_RETURN_IF_ERROR(in_a.Open(a, session));
  POS_RETURN_IF_ERROR(in_b.Open(b, session));
  while (!in_a.done() && !in_b.done()) {
    // Within one region both are at the same offset; when one has left it,
    // the other's rest is its alone.
    if (in_a.key() < in_b.key()) {
      report->only_a_bytes += in_a.left();
      POS_RETURN_IF_ERROR(in_a.Skip(in_a.left()));
    } else if (in_b.key() < in_a.key()) {
      report->only_b_bytes += in_b.left();
      POS_RETURN_IF_ERROR(in_b.Skip(in_b.left()));
    } else {
      const std::uint64_t both = std::min(in_a.left(), in_b.left());
      (SameContent(in_a.entry(), in_b.entry()) ? report->same_bytes
                                               : report->changed_bytes) += both;
      POS_RETURN_IF_ERROR(in_a.Skip(both));
      POS_RETURN_IF_ERROR(in_b.Skip(both));
    }
  }
  POS_RETURN_IF_ERROR(CountRest(&in_a, &report->only_a_bytes));
  return CountRest(&in_b, &report->only_b_bytes);
}

class Words {
 public:
  explicit Words(std::vector<std::string>* out) : out_(out) {}
  void Text(const std::string& what, const std::string& a,
            const std::string& b) {
    if (a != b) out_->push_back(what + ": " + a + " -> " + b);
  }
  void Number(const std::string& what, std::uint64_t a, std::uint64_t b) {
    Text(what, std::to_string(a), std::to_string(b));
  }

 private:
  std::vector<std::string>* const out_;
};

std::string Joined(const std::vector<std::string>& list) {
  std::string all;
  for (const std::string& text : list) all += (all.empty() ? "" : " ") + text;
  return all;
}

std::string Names(const std::vector<DeviceRecord>& devices) {
  std::string all;
  for (const DeviceRecord& device : devices) {
    all += (all.empty() ? "" : ", ") + device.name + " " + device.architecture;
  }
  return all;
}

void DiffWords(const Manifest& a, const Manifest& b, DiffReport* report) {
  Words words(&report->differences);
  words.Text("job", a.job.name, b.job.name);
  words.Text("command", Joined(a.job.argv), Joined(b.job.argv));
  words.Text("directory", a.job.cwd, b.job.cwd);
  words.Number("log bytes", a.job.log_bytes, b.job.log_bytes);
  words.Number("owner", a.owner_uid, b.owner_uid);
  words.Text("mode", std::string(CheckpointModeName(a.mode)),
             std::string(CheckpointModeName(b.mode)));
  words.Text("devices", Names(a.devices), Names(b.devices));
  words.Text("host", a.host.host, b.host.host);
  words.Text("kernel", a.host.kernel, b.host.kernel);
  words.Text("POS", a.host.pos_version, b.host.pos_version);
  words.Text("CRIU", a.host.criu_version, b.host.criu_version);
  words.Number("sessions", a.sessions.size(), b.sessions.size());
  words.Number("files", a.files.size(), b.files.size());
  words.Number("open files", a.open_files.size(), b.open_files.size());
  for (const OpenFileRecord& file : a.open_files) {
    for (const OpenFileRecord& other : b.open_files) {
      if (file.path != other.path) continue;
      words.Number("length of " + file.path, file.bytes, other.bytes);
      break;
    }
  }
}

bool HasSession(const Manifest& m, std::uint32_t number) {
  return std::any_of(
      m.sessions.begin(), m.sessions.end(),
      [number](const SessionRecord& s) { return s.number == number; });
}

}  // namespace

Result<DiffReport> Store::Diff(const std::string& a, const std::string& b) {
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<ImageHandle> image_a,
                       OpenImage(a, "diff"));
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<ImageHandle> image_b,
                       OpenImage(b, "diff"));
  const Manifest& in_a = image_a->manifest();
  const Manifest& in_b = image_b->manifest();
  if (in_a.digest_seed != in_b.digest_seed ||
      in_a.chunk_bytes != in_b.chunk_bytes) {
    return Incompatible("the images " + a + " and " + b +
                        " have different digest seeds or chunk sizes, so "
                        "their memory cannot be compared");
  }
  DiffReport report;
  DiffWords(in_a, in_b, &report);
  for (const SessionRecord& session : in_a.sessions) {
    if (HasSession(in_b, session.number)) {
      POS_RETURN_IF_ERROR(
          DiffSession(*image_a, *image_b, session.number, &report));
      continue;
    }
    Cursor rest;
    POS_RETURN_IF_ERROR(rest.Open(*image_a, session.number));
    POS_RETURN_IF_ERROR(CountRest(&rest, &report.only_a_bytes));
  }
  for (const SessionRecord& session : in_b.sessions) {
    if (HasSession(in_a, session.number)) continue;
    Cursor rest;
    POS_RETURN_IF_ERROR(rest.Open(*image_b, session.number));
    POS_RETURN_IF_ERROR(CountRest(&rest, &report.only_b_bytes));
  }
  return report;
}

}  // namespace pos::ckpt
