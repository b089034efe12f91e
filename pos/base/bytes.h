// Flat byte encoding for what is stored or sent between our own processes:
// little-endian fixed-width integers and length-prefixed byte strings.
//
// ByteReader never reads past its span: after a short read it is !ok() and
// yields zeros, so a decoder checks once at the end.
#ifndef POS_BASE_BYTES_H_
#define POS_BASE_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace pos {

class ByteWriter {
 public:
  template <typename T>
  requires std::is_trivially_copyable_v<T>
  void Put(const T& value) { PutRaw(std::as_bytes(std::span(&value, 1))); }
  void PutRaw(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  // u64 length, then the bytes.
  void PutBytes(std::span<const std::byte> bytes) {
    Put(static_cast<std::uint64_t>(bytes.size()));
    PutRaw(bytes);
  }
  void PutString(std::string_view text) {
    PutBytes(std::as_bytes(std::span(text)));
  }
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] std::vector<std::byte> Take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] std::size_t left() const { return rest_.size(); }

  template <typename T>
  requires std::is_trivially_copyable_v<T> T Get() {
    T value{};
    const std::span<const std::byte> raw = GetRaw(sizeof(T));
    if (raw.size() == sizeof(T)) std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }
  // Empty and !ok() when fewer than `size` bytes are left.
  std::span<const std::byte> GetRaw(std::uint64_t size);
  std::span<const std::byte> GetBytes();  // into the underlying span
  std::string GetString();

 private:
  std::span<const std::byte> rest_;
  bool ok_ = true;
};

// Lower-case hexadecimal of `bytes`, first byte first.
[[nodiscard]] std::string HexBytes(std::span<const std::byte> bytes);
// `count` bytes from the kernel's generator (getrandom). Never fails.
void RandomBytes(std::span<std::byte> out);

}  // namespace pos

#endif  // POS_BASE_BYTES_H_
