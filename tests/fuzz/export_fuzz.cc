// The reader of exported images on arbitrary bytes, down to a store on disk: it
// may refuse, never crash, read outside its input or leave anything behind.
//
// The input is read twice: as it is, and with checksums and end record made
// right, since otherwise nearly every input would stop at a checksum.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "accepted.h"
#include "ckpt/store/contents.h"
#include "ckpt/store/export.h"
#include "ckpt/store/export_format.h"
#include "planted.h"
#include "pos/base/files.h"

namespace pos::ckpt {
namespace {

using Bytes = std::vector<std::byte>;

class SpanFeed final : public ByteFeed {
 public:
  explicit SpanFeed(std::span<const std::byte> bytes) : left_(bytes) {}
  Result<std::size_t> Read(std::span<std::byte> out) override {
    const std::size_t n = std::min(out.size(), left_.size());
    std::copy_n(left_.begin(), n, out.begin());
    left_ = left_.subspan(n);
    return n;
  }

 private:
  std::span<const std::byte> left_;
};

class BytesSink final : public ByteSink {
 public:
  Status Write(std::span<const std::byte> bytes) override {
    out.insert(out.end(), bytes.begin(), bytes.end());
    return {};
  }
  Bytes out;
};

// In memory: a disk's fsync would be most of the time. What a run that crashed
// has left goes with the next one.
constexpr std::string_view kDirectory = "/dev/shm/pos-export-fuzz-";

void RemoveLeftOvers() {
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    const std::string path = entry.path().string();
    if (!path.starts_with(kDirectory)) continue;
    const int pid = std::atoi(path.c_str() + kDirectory.size());
    if (pid > 0 && ::kill(pid, 0) == 0) continue;
    RemoveTree(path).IgnoreError();
  }
}

// A store for the whole run, in a directory that goes with it.
class Target {
 public:
  Target() {
    RemoveLeftOvers();
    directory_ = std::string(kDirectory) + std::to_string(::getpid());
    if (::mkdir(directory_.c_str(), 0700) != 0) std::abort();
    StoreOptions options;
    options.chunk_bytes = kMinChunkBytes;
    options.close_wait_ms = 0;
    auto store = Store::Open(JoinPath(directory_, "store"), options);
    if (!store.ok()) std::abort();
    store_ = std::move(*store);
  }
  ~Target() {
    store_.reset();
    RemoveTree(directory_).IgnoreError();
  }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  // Whether it is an image.
  bool Import(std::span<const std::byte> bytes) {
    SpanFeed feed(bytes);
    const Result<ImportReport> report = ImportImage(store_.get(), &feed, {});
    if (!report.ok()) return false;
    const Manifest& m = report->manifest;
    // What was taken in is whole, and can go out again.
    const auto verified = store_->Verify(m.image);
    if (!verified.ok() || verified->problems != 0) std::abort();
    {
      const auto image = store_->OpenImage(m.image, "fuzz");
      if (!image.ok()) std::abort();
      for (const SessionRecord& session : m.sessions) {
        const auto contents = ReadContents(**image, session, 4);
        if (!contents.ok()) std::abort();
        for (const RegionUse& use : contents->regions) {
          fuzz::PlantedBug(use.region.flags > 0xffff);
        }
      }
      BytesSink sink;
      if (!ExportImage(**image, store_->id(), store_->export_key(), &sink)
               .ok()) {
        std::abort();
      }
    }
    if (!store_->Remove(m.image).ok() || !store_->Gc().ok()) std::abort();
    return true;
  }

 private:
  std::string directory_;
  std::unique_ptr<Store> store_;
};

// What a writer would have made of these records.
Bytes Repaired(std::span<const std::byte> file) {
  BytesSink sink;
  RecordWriter writer(&sink, "fuzz", FileKind::kExport, StoreId(), 0);
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
    if (!writer.Append(type, flags, file.subspan(at, length)).ok()) {
      std::abort();
    }
    at = std::min(file.size(), at + (length + 7) / 8 * 8);
  }
  if (!writer.Finish().ok()) std::abort();
  return sink.out;
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
  static pos::ckpt::Target target;
  const auto bytes = std::as_bytes(std::span(data, size));
  target.Import(bytes);
  if (target.Import(pos::ckpt::Repaired(bytes))) {
    pos::fuzz::AcceptedInputs().Add(
        {reinterpret_cast<const char*>(data), size});
  }
  return 0;
}
