#include "ckpt/criu/wire.h"

namespace pos {

bool WireReader::TakeVarint(std::uint64_t* value) {
  *value = 0;
  for (std::size_t i = 0; i < 10 && i < rest_.size(); ++i) {
    const auto byte = static_cast<unsigned char>(rest_[i]);
    if (i == 9 && byte > 1) return false;  // more than 64 bits
    *value |= static_cast<std::uint64_t>(byte & 0x7f) << (7 * i);
    if ((byte & 0x80) == 0) {
      rest_.remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

bool WireReader::TakeFixed(std::size_t size) {
  if (rest_.size() < size) return false;
  number_ = 0;
  for (std::size_t i = 0; i < size; ++i) {
    number_ |= static_cast<std::uint64_t>(static_cast<unsigned char>(rest_[i]))
               << (8 * i);
  }
  rest_.remove_prefix(size);
  return true;
}

bool WireReader::Next() {
  if (!ok_ || rest_.empty()) return false;
  const std::string_view start = rest_;
  std::uint64_t key = 0;
  ok_ = TakeVarint(&key) && (key >> 3) != 0 && (key >> 3) <= 0x1fffffff;
  if (!ok_) return false;
  field_ = static_cast<std::uint32_t>(key >> 3);
  number_ = 0;
  bytes_ = {};
  type_ = static_cast<Type>(key & 7);
  switch (type_) {
    case Type::kVarint:
      ok_ = TakeVarint(&number_);
      break;
    case Type::kFixed64:
      ok_ = TakeFixed(8);
      break;
    case Type::kFixed32:
      ok_ = TakeFixed(4);
      break;
    case Type::kBytes: {
      std::uint64_t size = 0;
      ok_ = TakeVarint(&size) && size <= rest_.size();
      if (!ok_) break;
      bytes_ = rest_.substr(0, static_cast<std::size_t>(size));
      rest_.remove_prefix(static_cast<std::size_t>(size));
      break;
    }
    default:  // groups, which CRIU does not use
      ok_ = false;
  }
  raw_ = start.substr(0, start.size() - rest_.size());
  return ok_;
}

void WireWriter::PutVarint(std::uint64_t value) {
  while (value >= 0x80) {
    message_ += static_cast<char>((value & 0x7f) | 0x80);
    value >>= 7;
  }
  message_ += static_cast<char>(value);
}

void WireWriter::PutNumber(std::uint32_t field, std::uint64_t value) {
  PutVarint(static_cast<std::uint64_t>(field) << 3);
  PutVarint(value);
}

void WireWriter::PutBytes(std::uint32_t field, std::string_view bytes) {
  PutVarint(static_cast<std::uint64_t>(field) << 3 | 2);
  PutVarint(bytes.size());
  message_ += bytes;
}

}  // namespace pos
