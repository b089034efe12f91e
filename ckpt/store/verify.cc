// Reads every byte of an image and compares it with what the manifest says.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "ckpt/format/record.h"
#include "ckpt/pack/chunk_stream.h"
#include "ckpt/store/image.h"
#include "ckpt/store/store.h"
#include "ckpt/store/tree.h"
#include "pos/base/files.h"

namespace pos::ckpt {
namespace {

constexpr std::size_t kMaxProblems = 100;

FileRecord IndexFile(const SessionRecord& session) {
  FileRecord index;
  index.path = session.index;
  index.bytes = session.index_bytes;
  index.digest = session.index_digest;
  return index;
}

Status CompareFile(const std::string& directory, const FileRecord& wanted,
                   const DigestKey& key) {
  const Result<FileRecord> found =
      DescribeFile(directory, wanted.path, key, false);
  if (!found.ok()) return found.status();
  if (found->bytes != wanted.bytes) {
    return Corrupt(wanted.path + " has " + std::to_string(found->bytes) +
                   " bytes, not " + std::to_string(wanted.bytes));
  }
  if (found->digest != wanted.digest) {
    return Corrupt(wanted.path + " is not what was written");
  }
  return {};
}

class Verifier {
 public:
  Verifier(const ImageHandle& image, const VerifyOptions& options)
      : image_(image), options_(options), key_(image.manifest().digest_seed) {}

  Result<VerifyReport> Run() {
    POS_RETURN_IF_ERROR(CheckFiles());
    for (const SessionRecord& session : image_.manifest().sessions) {
      POS_RETURN_IF_ERROR(CheckSession(session));
    }
    return std::move(report_);
  }

 private:
  // Damage is reported; anything else ends the check.
  Status Note(const Status& status) {
    if (status.ok()) return {};
    if (status.code() != Code::kCorrupt && status.code() != Code::kNoSuch &&
        status.code() != Code::kIncompatible) {
      return status;
    }
    ++report_.problems;
    if (report_.first_problems.size() < kMaxProblems) {
      report_.first_problems.push_back(status.message());
    }
    return {};
  }
  Status Cancelled() const {
    if (options_.cancel != nullptr && options_.cancel->load()) {
      return Aborted("the check was cancelled");
    }
    return {};
  }

  Status CheckFile(const FileRecord& wanted) {
    ++report_.files;
    return Note(CompareFile(image_.directory(), wanted, key_));
  }

  Status CheckFiles() {
    std::set<std::string> listed = {"manifest"};
    for (const FileRecord& file : image_.manifest().files) {
      POS_RETURN_IF_ERROR(Cancelled());
      POS_RETURN_IF_ERROR(CheckFile(file));
      listed.insert(file.path);
    }
    for (const SessionRecord& session : image_.manifest().sessions) {
      POS_RETURN_IF_ERROR(CheckFile(IndexFile(session)));
      listed.insert(session.index);
    }
    const Result<Tree> tree = ListTree(image_.directory());
    if (!tree.ok()) return Note(Corrupt(tree.status().message()));
    for (const std::string& path : tree->files) {
      if (listed.contains(path)) continue;
      POS_RETURN_IF_ERROR(Note(Corrupt(path + " is not in the manifest")));
    }
    return {};
  }

  Status CheckSession(const SessionRecord& session) {
    Result<SessionReadFiles> files = image_.OpenSession(session.number);
    if (!files.ok()) return Note(files.status());
    PackSet packs;
    for (auto& [id, fd] : files->packs) {
      POS_RETURN_IF_ERROR(Note(packs.Add(id, std::move(fd))));
    }
    POS_ASSIGN_OR_RETURN(const std::unique_ptr<FdSource> source,
                         FdSource::Open(files->index.get(), session.index));
    Result<std::unique_ptr<IndexReader>> index =
        IndexReader::Open(source.get(), session.index);
    if (!index.ok()) return Note(index.status());
    if ((*index)->head().session != session.number ||
        (*index)->head().digest_seed != image_.manifest().digest_seed) {
      return Note(Corrupt(session.index + " is the index of something else"));
    }
    POS_ASSIGN_OR_RETURN(
        const std::unique_ptr<ChunkStream> stream,
        ChunkStream::Open(std::move(*index), &packs, ChunkStreamOptions()));
    while (!stream->done()) {
      POS_RETURN_IF_ERROR(Cancelled());
      const Result<ChunkStream::Piece> piece = stream->Next();
      if (!piece.ok()) {
        POS_RETURN_IF_ERROR(Note(piece.status().WithContext(
            "session " + std::to_string(session.number))));
        continue;
      }
      if (piece->what == ChunkStream::Piece::What::kData) ++report_.chunks;
      if (piece->what == ChunkStream::Piece::What::kData ||
          piece->what == ChunkStream::Piece::What::kZeros) {
        report_.bytes += piece->bytes;
        if (options_.progress) options_.progress(report_.bytes);
      }
    }
    return {};
  }

  const ImageHandle& image_;
  const VerifyOptions& options_;
  const DigestKey key_;
  VerifyReport report_;
};

}  // namespace

Status ImageHandle::CheckFiles() const {
  const DigestKey key(manifest_.digest_seed);
  const auto check = [&](const FileRecord& file) {
    const Status status = CompareFile(directory_, file, key);
    if (status.code() != Code::kNoSuch) return status;
    return Corrupt(file.path + " is missing");
  };
  for (const FileRecord& file : manifest_.files) {
    POS_RETURN_IF_ERROR(check(file).WithContext("image " + manifest_.image));
  }
  for (const SessionRecord& session : manifest_.sessions) {
    POS_RETURN_IF_ERROR(
        check(IndexFile(session)).WithContext("image " + manifest_.image));
  }
  return {};
}

Result<VerifyReport> Store::Verify(const std::string& image,
                                   const VerifyOptions& options) {
  POS_ASSIGN_OR_RETURN(const ImageSummary summary, Find(image));
  const Result<std::unique_ptr<ImageHandle>> handle =
      OpenImage(image, "verify");
  if (!handle.ok()) {
    if (handle.status().code() != Code::kCorrupt &&
        handle.status().code() != Code::kIncompatible) {
      return handle.status();
    }
    VerifyReport report;
    report.problems = 1;
    report.first_problems.push_back(handle.status().message());
    return report;
  }
  return Verifier(**handle, options).Run();
}

}  // namespace pos::ckpt
