#include "ckpt/format/record.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

// The state's definition is in the static part of the interface.
#define XXH_STATIC_LINKING_ONLY
#include <xxh_x86dispatch.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "ckpt/format/digest.h"
#include "pos/base/bytes.h"
#include "pos/base/fd.h"
#include "pos/base/files.h"
#include "pos/base/log.h"

namespace pos::ckpt {
namespace {

constexpr std::size_t kRecordAlign = 8;
// Of a record's header, what its sum covers.
constexpr std::size_t kSummedHeaderBytes = 16;

std::uint64_t Padded(std::uint64_t bytes) {
  return (bytes + kRecordAlign - 1) / kRecordAlign * kRecordAlign;
}

}  // namespace

// The sum's own field lies between the two summed parts.
std::uint64_t SumOfRecord(std::span<const std::byte> record,
                          std::uint64_t offset) {
  XXH3_state_t state;
  XXH3_INITSTATE(&state);
  XXH3_64bits_reset_withSeed(&state, offset);
  XXH3_64bits_update_dispatch(&state, record.data(), kSummedHeaderBytes);
  const std::span<const std::byte> body = record.subspan(kRecordHeaderBytes);
  XXH3_64bits_update_dispatch(&state, body.data(), body.size());
  return XXH3_64bits_digest(&state);
}

Result<std::unique_ptr<FdSource>> FdSource::Open(int fd, std::string name) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) return ErrnoStatus(errno, "stat " + name);
  if (!S_ISREG(st.st_mode)) return Invalid(name + " is not a regular file");
  return std::unique_ptr<FdSource>(new FdSource(
      fd, static_cast<std::uint64_t>(st.st_size), std::move(name)));
}

Status FdSource::Read(std::uint64_t offset, std::span<std::byte> out) {
  return PreadFull(fd_, out, offset, name_);
}

Status SpanSource::Read(std::uint64_t offset, std::span<std::byte> out) {
  if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
    return Corrupt("read past the end");
  }
  std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), out.size(),
              out.begin());
  return {};
}

SumOfSums::SumOfSums() : state_(XXH3_createState()) {
  if (state_ == nullptr) std::abort();  // 576 bytes
  XXH3_64bits_reset(state_);
}

SumOfSums::~SumOfSums() { XXH3_freeState(state_); }

void SumOfSums::Add(std::uint64_t sum) {
  XXH3_64bits_update(state_, &sum, sizeof(sum));
}

std::uint64_t SumOfSums::Value() const { return XXH3_64bits_digest(state_); }

RecordWriter::RecordWriter(int fd, std::string name, FileKind kind,
                           const StoreId& store, std::uint64_t created_ms)
    : fd_(fd), name_(std::move(name)) {
  const auto header = EncodeHeader(kind, store, created_ms);
  buffer_.reserve(kBufferBytes);
  buffer_.assign(header.begin(), header.end());
}

RecordWriter::RecordWriter(ByteSink* sink, std::string name, FileKind kind,
                           const StoreId& store, std::uint64_t created_ms)
    : sink_(sink), name_(std::move(name)) {
  const auto header = EncodeHeader(kind, store, created_ms);
  buffer_.reserve(kBufferBytes);
  buffer_.assign(header.begin(), header.end());
}

Status RecordWriter::Append(std::uint32_t type, std::uint16_t flags,
                            std::span<const std::byte> payload) {
  if (!status_.ok()) return status_;
  if (payload.size() > kMaxRecordBytes) {
    return Invalid(name_ + ": a record has at most " +
                   std::to_string(kMaxRecordBytes) + " bytes, this one " +
                   std::to_string(payload.size()));
  }
  const std::uint64_t offset = bytes();
  ByteWriter head;
  head.Put(type);
  head.Put(flags);
  head.Put(std::uint16_t{0});
  head.Put(static_cast<std::uint64_t>(payload.size()));
  head.Put(std::uint64_t{0});
  const std::size_t start = buffer_.size();
  buffer_.insert(buffer_.end(), head.bytes().begin(), head.bytes().end());
  buffer_.insert(buffer_.end(), payload.begin(), payload.end());
  buffer_.resize(start + kRecordHeaderBytes + Padded(payload.size()));
  const std::uint64_t sum =
      SumOfRecord(std::span(buffer_).subspan(start), offset);
  std::memcpy(buffer_.data() + start + kSummedHeaderBytes, &sum, sizeof(sum));
  sums_.Add(sum);
  ++records_;
  if (buffer_.size() >= kBufferBytes) return Flush();
  return {};
}

Status RecordWriter::Flush() {
  if (!status_.ok()) return status_;
  status_ = sink_ != nullptr ? sink_->Write(buffer_)
                             : PwriteFull(fd_, buffer_, flushed_, name_);
  if (status_.ok()) flushed_ += buffer_.size();
  buffer_.clear();
  return status_;
}

Status RecordWriter::Finish() {
  ByteWriter end;
  end.Put(records_);
  end.Put(bytes());
  end.Put(sums_.Value());
  POS_RETURN_IF_ERROR(Append(kRecordEnd, 0, end.bytes()));
  POS_RETURN_IF_ERROR(Flush());
  status_ = Internal(name_ + " is finished");
  return {};
}

Result<std::unique_ptr<RecordReader>> RecordReader::Open(ByteSource* source,
                                                         FileKind kind,
                                                         std::string name) {
  std::unique_ptr<RecordReader> reader(
      new RecordReader(source, std::move(name)));
  POS_ASSIGN_OR_RETURN(
      const std::span<const std::byte> bytes,
      reader->View(0, std::min<std::uint64_t>(kHeaderBytes, source->size())));
  POS_ASSIGN_OR_RETURN(reader->header_,
                       DecodeHeader(bytes, kind, reader->name_));
  return reader;
}

Result<std::span<const std::byte>> RecordReader::View(std::uint64_t offset,
                                                      std::uint64_t size) {
  const std::uint64_t file = source_->size();
  if (offset > file || size > file - offset) {
    return Corrupt(name_ + ": the file ends at byte " + std::to_string(file) +
                   ", " + std::to_string(size) + " bytes were due at byte " +
                   std::to_string(offset));
  }
  if (offset < window_at_ || offset - window_at_ > window_.size() ||
      size > window_.size() - (offset - window_at_)) {
    window_.resize(std::max(size, std::min(kWindowBytes, file - offset)));
    window_at_ = offset;
    if (Status read = source_->Read(offset, window_); !read.ok()) {
      window_.clear();
      return read.WithContext(name_);
    }
  }
  return std::span<const std::byte>(window_).subspan(offset - window_at_, size);
}

Status RecordReader::ReadRecord(std::uint64_t offset, Record* record,
                                std::uint64_t* sum) {
  record->offset = offset;
  POS_ASSIGN_OR_RETURN(std::span<const std::byte> bytes,
                       View(offset, kRecordHeaderBytes));
  ByteReader head(bytes);
  record->type = head.Get<std::uint32_t>();
  const auto flags = head.Get<std::uint16_t>();
  const auto zero = head.Get<std::uint16_t>();
  const auto length = head.Get<std::uint64_t>();
  *sum = head.Get<std::uint64_t>();
  if (length > kMaxRecordBytes) {
    return BadRecord(*record, "its length of " + std::to_string(length) +
                                  " bytes is above the limit");
  }
  record->size = kRecordHeaderBytes + Padded(length);
  POS_ASSIGN_OR_RETURN(bytes, View(offset, record->size));
  if (*sum != SumOfRecord(bytes, offset)) {
    return BadRecord(*record, "it does not match its checksum");
  }
  const std::span<const std::byte> body = bytes.subspan(kRecordHeaderBytes);
  if (zero != 0 || !AllZero(body.subspan(length))) {
    return BadRecord(*record, "bytes that must be zero are not");
  }
  if ((flags & ~kRecordOptional) != 0) {
    return Incompatible(name_ + ": the record at byte " +
                        std::to_string(offset) + " has flags " + Hex(flags) +
                        ", of which format version " +
                        std::to_string(kFormatVersion) + " knows only 1");
  }
  record->optional = (flags & kRecordOptional) != 0;
  record->payload = body.first(length);
  return {};
}

Result<bool> RecordReader::Next(Record* record) {
  if (ended_) return false;
  std::uint64_t sum = 0;
  POS_RETURN_IF_ERROR(ReadRecord(offset_, record, &sum));
  if (record->type == kRecordEnd) {
    POS_RETURN_IF_ERROR(CheckEnd(*record));
    ended_ = true;
    return false;
  }
  sums_.Add(sum);
  ++records_;
  offset_ += record->size;
  return true;
}

Status RecordReader::CheckEnd(const Record& end) const {
  ByteReader in(end.payload);
  const auto records = in.Get<std::uint64_t>();
  const auto bytes = in.Get<std::uint64_t>();
  const auto sums = in.Get<std::uint64_t>();
  if (!in.ok()) return BadRecord(end, "it is too short");
  if (records != records_ || bytes != end.offset || sums != sums_.Value()) {
    return BadRecord(
        end, "it ends " + std::to_string(records) + " records, the file has " +
                 std::to_string(records_) + ", or others than were written");
  }
  const std::uint64_t after = end.offset + end.size;
  if (after != source_->size()) {
    return Corrupt(name_ + ": " + std::to_string(source_->size() - after) +
                   " bytes follow the end record");
  }
  return {};
}

Result<Record> RecordReader::ReadAt(std::uint64_t offset) {
  Record record;
  std::uint64_t sum = 0;
  POS_RETURN_IF_ERROR(ReadRecord(offset, &record, &sum));
  return record;
}

Status RecordReader::UnknownRecord(const Record& record) const {
  return Incompatible(
      name_ + ": the record of type " + Hex(record.type) + " at byte " +
          std::to_string(record.offset) +
          " is required, and this POS does not know it (the file has format "
          "version " +
          std::to_string(header_.version) + ", written by POS " +
          header_.writer + "; this is POS " + std::string(WriterVersion()) +
          ", format version " + std::to_string(kFormatVersion) + ")",
      "use a POS at least as new as " + header_.writer);
}

Status RecordReader::BadRecord(const Record& record,
                               std::string_view why) const {
  return Corrupt(name_ + ": record of type " + Hex(record.type) + " at byte " +
                 std::to_string(record.offset) + ": " + std::string(why));
}

Status WriteRecordFile(const std::string& path, FileKind kind,
                       const StoreId& store, std::uint64_t created_ms,
                       std::uint32_t type, std::span<const std::byte> payload) {
  const std::string temporary = path + ".tmp";
  POS_ASSIGN_OR_RETURN(UniqueFd fd,
                       OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600));
  RecordWriter writer(fd.get(), temporary, kind, store, created_ms);
  Status status = writer.Append(type, 0, payload);
  if (status.ok()) status = writer.Finish();
  if (status.ok() && ::fsync(fd.get()) != 0) {
    status = ErrnoStatus(errno, "fsync " + temporary);
  }
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, "rename to " + path);
  }
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  return SyncDirectory(path.substr(0, path.rfind('/')));
}

}  // namespace pos::ckpt
