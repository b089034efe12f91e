// Reads a record file from its first byte to its last, from something that
// cannot seek: a pipe. ckpt/FORMAT.md, "Record files". Written by a
// RecordWriter with a ByteSink.
//
// Threads: one.
// Memory:  one record (at most kMaxRecordBytes).
// Errors:  kCorrupt for bytes that break the grammar or a checksum, and for a
//          stream that ends before its end record or does not end after it;
//          kIncompatible for a later version; what the feed returns.
//
// Test: tests/ckpt/format/record_test.cc   Fuzz: tests/fuzz/export_fuzz.cc
#ifndef CKPT_FORMAT_RECORD_STREAM_H_
#define CKPT_FORMAT_RECORD_STREAM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ckpt/format/record.h"
#include "pos/base/status.h"

namespace pos::ckpt {

class ByteFeed {
 public:
  virtual ~ByteFeed() = default;
  // Up to out.size() bytes; 0 at the end.
  virtual Result<std::size_t> Read(std::span<std::byte> out) = 0;
};

class RecordStreamReader {
 public:
  // `feed` must outlive the reader. `name` is the stream's in errors.
  static Result<std::unique_ptr<RecordStreamReader>> Open(ByteFeed* feed,
                                                          FileKind kind,
                                                          std::string name);

  // The next record, checked; false once the end record was found to match all
  // before it and nothing follows.
  Result<bool> Next(Record* record);

  [[nodiscard]] const FileHeader& header() const { return header_; }
  // As they came.
  [[nodiscard]] std::span<const std::byte> header_bytes() const {
    return header_bytes_;
  }
  // Bytes up to the end of the latest record.
  [[nodiscard]] std::uint64_t bytes() const { return offset_; }
  // kCorrupt, naming the record.
  [[nodiscard]] Status BadRecord(const Record& record,
                                 std::string_view why) const;

 private:
  RecordStreamReader(ByteFeed* feed, std::string name)
      : feed_(feed), name_(std::move(name)) {}
  // Fills `out`; kCorrupt when the stream ends before.
  Status Fill(std::span<std::byte> out);
  Status CheckEnd(const Record& end);

  ByteFeed* const feed_;
  const std::string name_;
  FileHeader header_;
  std::array<std::byte, kHeaderBytes> header_bytes_{};
  std::vector<std::byte> buffer_;  // of the latest record
  std::uint64_t offset_ = 0;       // of the next one
  std::uint64_t records_ = 0;
  bool ended_ = false;
  SumOfSums sums_;
};

}  // namespace pos::ckpt

#endif  // CKPT_FORMAT_RECORD_STREAM_H_
