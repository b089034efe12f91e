// Protocol-buffer wire format without a schema: CRIU's RPC and image files are
// read and written field by field, by the numbers of CRIU's published .proto
// files, so POS depends on no generated code of CRIU's.
//
// Threads: values, no shared state.
// Errors:  a reader never leaves its span; after malformed input Next() is
//          false and ok() is false.
//
// Test: tests/ckpt/criu/images_test.cc
#ifndef CKPT_CRIU_WIRE_H_
#define CKPT_CRIU_WIRE_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace pos {

class WireReader {
 public:
  enum class Type { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  // `message` must outlive the reader and the views it hands out.
  explicit WireReader(std::string_view message) : rest_(message) {}

  // Moves to the next field. False at the end and on malformed input.
  [[nodiscard]] bool Next();
  [[nodiscard]] bool ok() const { return ok_; }

  [[nodiscard]] std::uint32_t field() const { return field_; }
  [[nodiscard]] Type type() const { return type_; }
  // Value of a varint, fixed32 or fixed64 field.
  [[nodiscard]] std::uint64_t number() const { return number_; }
  // Content of a length-delimited field; empty for the others.
  [[nodiscard]] std::string_view bytes() const { return bytes_; }
  // The whole field as it stands in the message, key included.
  [[nodiscard]] std::string_view raw() const { return raw_; }

 private:
  bool TakeVarint(std::uint64_t* value);
  bool TakeFixed(std::size_t size);

  std::string_view rest_;
  std::string_view raw_;
  std::string_view bytes_;
  std::uint64_t number_ = 0;
  std::uint32_t field_ = 0;
  Type type_ = Type::kVarint;
  bool ok_ = true;
};

class WireWriter {
 public:
  void PutNumber(std::uint32_t field, std::uint64_t value);
  // int32 and int64 fields: negative values take ten bytes, as protobuf wants.
  void PutSigned(std::uint32_t field, std::int64_t value) {
    PutNumber(field, static_cast<std::uint64_t>(value));
  }
  void PutBytes(std::uint32_t field, std::string_view bytes);
  void PutRaw(std::string_view raw) { message_ += raw; }

  [[nodiscard]] const std::string& message() const { return message_; }

 private:
  void PutVarint(std::uint64_t value);

  std::string message_;
};

}  // namespace pos

#endif  // CKPT_CRIU_WIRE_H_
