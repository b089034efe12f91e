// Record files: the grammar that manifest, chunk index, store identity and
// pins share. ckpt/FORMAT.md, "Record files".
//
// Threads:   one thread at a time per writer and per reader.
// Memory:    a writer holds 256 KiB, a reader 256 KiB and one record (at most
//            kMaxRecordBytes), whatever the file's size.
// Ownership: descriptors stay the caller's. They are used with pread and
//            pwrite only, so their file position does not matter.
// Errors:    kCorrupt for bytes that break the grammar or a checksum, with the
//            offset; kIncompatible for a later version; kDiskFull and other
//            errno codes from the file.
//
// Test: tests/ckpt/format/record_test.cc   Fuzz: tests/fuzz/image_fuzz.cc
#ifndef CKPT_FORMAT_RECORD_H_
#define CKPT_FORMAT_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ckpt/format/header.h"
#include "ckpt/format/id.h"
#include "pos/base/status.h"

struct XXH3_state_s;

namespace pos::ckpt {

inline constexpr std::size_t kMaxRecordBytes = 8u << 20;
inline constexpr std::size_t kRecordHeaderBytes = 24;
inline constexpr std::uint32_t kRecordEnd = 0xffff;
// A reader that does not know the record's type may skip it.
inline constexpr std::uint16_t kRecordOptional = 1;

// Where a file's bytes come from.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  [[nodiscard]] virtual std::uint64_t size() const = 0;
  // Fills `out` from `offset`; the caller stays within size().
  virtual Status Read(std::uint64_t offset, std::span<std::byte> out) = 0;
};

class FdSource final : public ByteSource {
 public:
  // `fd` must stay open. kInvalid when it is not a regular file.
  static Result<std::unique_ptr<FdSource>> Open(int fd, std::string name);
  [[nodiscard]] std::uint64_t size() const override { return size_; }
  Status Read(std::uint64_t offset, std::span<std::byte> out) override;

 private:
  FdSource(int fd, std::uint64_t size, std::string name)
      : fd_(fd), size_(size), name_(std::move(name)) {}
  const int fd_;
  const std::uint64_t size_;  // when it was opened
  const std::string name_;
};

class SpanSource final : public ByteSource {
 public:
  explicit SpanSource(std::span<const std::byte> bytes) : bytes_(bytes) {}
  [[nodiscard]] std::uint64_t size() const override { return bytes_.size(); }
  Status Read(std::uint64_t offset, std::span<std::byte> out) override;

 private:
  const std::span<const std::byte> bytes_;
};

// Running XXH3_64 over the sums of a file's records.
class SumOfSums {
 public:
  SumOfSums();
  ~SumOfSums();
  SumOfSums(const SumOfSums&) = delete;
  SumOfSums& operator=(const SumOfSums&) = delete;
  void Add(std::uint64_t sum);
  [[nodiscard]] std::uint64_t Value() const;

 private:
  XXH3_state_s* const state_;
};

// Where a stream's bytes go, in order.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual Status Write(std::span<const std::byte> bytes) = 0;
};

// The checksum of a record whose bytes, header included, are `record`.
[[nodiscard]] std::uint64_t SumOfRecord(std::span<const std::byte> record,
                                        std::uint64_t offset);

class RecordWriter {
 public:
  // Into a stream; `sink` must outlive the writer.
  RecordWriter(ByteSink* sink, std::string name, FileKind kind,
               const StoreId& store, std::uint64_t created_ms);
  // Writes from the start of `fd`, an empty regular file called `name`.
  RecordWriter(int fd, std::string name, FileKind kind, const StoreId& store,
               std::uint64_t created_ms);

  // Sticky: after an error every call returns it.
  Status Append(std::uint32_t type, std::uint16_t flags,
                std::span<const std::byte> payload);
  // Everything so far to the file or sink.
  Status Flush();
  // The end record, and everything handed to the kernel. Not fsync.
  Status Finish();
  // What Append has taken so far, header included.
  [[nodiscard]] std::uint64_t bytes() const {
    return flushed_ + buffer_.size();
  }

 private:
  static constexpr std::size_t kBufferBytes = 256u << 10;

  const int fd_ = -1;
  ByteSink* const sink_ = nullptr;  // instead of fd_
  const std::string name_;
  std::vector<std::byte> buffer_;
  std::uint64_t flushed_ = 0;
  std::uint64_t records_ = 0;
  SumOfSums sums_;
  Status status_;
};

struct Record {
  std::uint32_t type = 0;
  bool optional = false;
  std::uint64_t offset = 0;  // in the file
  // Bytes of the file that the record takes, its header and padding included.
  std::uint64_t size = 0;
  std::span<const std::byte> payload;  // until the reader's next call
};

class RecordReader {
 public:
  // `source` must outlive the reader. `name` is the file's in errors.
  static Result<std::unique_ptr<RecordReader>> Open(ByteSource* source,
                                                    FileKind kind,
                                                    std::string name);

  // The next record, checked; false after the last one, once the end record
  // was found to match all before it and to be the end of the file.
  Result<bool> Next(Record* record);
  // The record that starts at `offset`, which Next has returned before. Does
  // not disturb Next; its payload replaces the one that Next gave.
  Result<Record> ReadAt(std::uint64_t offset);

  [[nodiscard]] const FileHeader& header() const { return header_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  // The error for a record of a type that the caller does not know and that is
  // not optional.
  [[nodiscard]] Status UnknownRecord(const Record& record) const;
  // kCorrupt, naming the record.
  [[nodiscard]] Status BadRecord(const Record& record,
                                 std::string_view why) const;

 private:
  RecordReader(ByteSource* source, std::string name)
      : source_(source), name_(std::move(name)) {}
  Status ReadRecord(std::uint64_t offset, Record* record, std::uint64_t* sum);
  // Bytes [offset, offset + size) of the file, through the window.
  Result<std::span<const std::byte>> View(std::uint64_t offset,
                                          std::uint64_t size);
  Status CheckEnd(const Record& end) const;

  static constexpr std::uint64_t kWindowBytes = 256u << 10;

  ByteSource* const source_;
  const std::string name_;
  FileHeader header_;
  std::vector<std::byte> window_;  // bytes of the file from window_at_
  std::uint64_t window_at_ = 0;
  std::uint64_t offset_ = kHeaderBytes;  // of the next record
  std::uint64_t records_ = 0;
  bool ended_ = false;
  SumOfSums sums_;
};

// The whole of a small record file in one go, for identity and pins.
Status WriteRecordFile(const std::string& path, FileKind kind,
                       const StoreId& store, std::uint64_t created_ms,
                       std::uint32_t type, std::span<const std::byte> payload);

}  // namespace pos::ckpt

#endif  // CKPT_FORMAT_RECORD_H_
