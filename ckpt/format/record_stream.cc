#include "ckpt/format/record_stream.h"

#include <array>

#include "ckpt/format/digest.h"
#include "pos/base/bytes.h"
#include "pos/base/log.h"

namespace pos::ckpt {
namespace {

std::size_t Padded(std::uint64_t bytes) {
  return static_cast<std::size_t>((bytes + 7) / 8 * 8);
}

}  // namespace

Result<std::unique_ptr<RecordStreamReader>> RecordStreamReader::Open(
    ByteFeed* feed, FileKind kind, std::string name) {
  std::unique_ptr<RecordStreamReader> reader(
      new RecordStreamReader(feed, std::move(name)));
  POS_RETURN_IF_ERROR(reader->Fill(reader->header_bytes_));
  POS_ASSIGN_OR_RETURN(reader->header_, DecodeHeader(reader->header_bytes_,
                                                     kind, reader->name_));
  reader->offset_ = kHeaderBytes;
  return reader;
}

Status RecordStreamReader::Fill(std::span<std::byte> out) {
  while (!out.empty()) {
    POS_ASSIGN_OR_RETURN(const std::size_t n, feed_->Read(out));
    if (n == 0) {
      return Corrupt(name_ + ": it ends in the middle, after byte " +
                     std::to_string(offset_));
    }
    out = out.subspan(n);
  }
  return {};
}

Result<bool> RecordStreamReader::Next(Record* record) {
  if (ended_) return false;
  record->offset = offset_;
  buffer_.resize(kRecordHeaderBytes);
  POS_RETURN_IF_ERROR(Fill(buffer_));
  ByteReader head(buffer_);
  record->type = head.Get<std::uint32_t>();
  const auto flags = head.Get<std::uint16_t>();
  const auto zero = head.Get<std::uint16_t>();
  const auto length = head.Get<std::uint64_t>();
  const auto sum = head.Get<std::uint64_t>();
  if (length > kMaxRecordBytes) {
    return BadRecord(*record, "its length of " + std::to_string(length) +
                                  " bytes is above the limit");
  }
  record->size = kRecordHeaderBytes + Padded(length);
  buffer_.resize(record->size);
  const std::span<std::byte> body =
      std::span(buffer_).subspan(kRecordHeaderBytes);
  POS_RETURN_IF_ERROR(Fill(body));
  if (sum != SumOfRecord(buffer_, offset_)) {
    return BadRecord(*record, "it does not match its checksum");
  }
  if (zero != 0 || !AllZero(body.subspan(length))) {
    return BadRecord(*record, "bytes that must be zero are not");
  }
  if ((flags & ~kRecordOptional) != 0) {
    return Incompatible(name_ + ": the record at byte " +
                        std::to_string(offset_) + " has flags " + Hex(flags) +
                        ", of which format version " +
                        std::to_string(kFormatVersion) + " knows only 1");
  }
  record->optional = (flags & kRecordOptional) != 0;
  record->payload = body.first(length);
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

Status RecordStreamReader::CheckEnd(const Record& end) {
  ByteReader in(end.payload);
  const auto records = in.Get<std::uint64_t>();
  const auto bytes = in.Get<std::uint64_t>();
  const auto sums = in.Get<std::uint64_t>();
  if (!in.ok()) return BadRecord(end, "it is too short");
  if (records != records_ || bytes != end.offset || sums != sums_.Value()) {
    return BadRecord(end, "it ends other records than were written");
  }
  std::array<std::byte, 1> more{};
  POS_ASSIGN_OR_RETURN(const std::size_t n, feed_->Read(more));
  if (n != 0) return Corrupt(name_ + ": bytes follow the end record");
  offset_ += end.size;
  return {};
}

Status RecordStreamReader::BadRecord(const Record& record,
                                     std::string_view why) const {
  return Corrupt(name_ + ": record of type " + Hex(record.type) + " at byte " +
                 std::to_string(record.offset) + ": " + std::string(why));
}

}  // namespace pos::ckpt
