#include "pos/base/bytes.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>

namespace pos {

std::span<const std::byte> ByteReader::GetRaw(std::uint64_t size) {
  if (!ok_ || size > rest_.size()) {
    ok_ = false;
    return {};
  }
  const std::span<const std::byte> taken =
      rest_.first(static_cast<std::size_t>(size));
  rest_ = rest_.subspan(static_cast<std::size_t>(size));
  return taken;
}

std::span<const std::byte> ByteReader::GetBytes() {
  return GetRaw(Get<std::uint64_t>());
}

std::string ByteReader::GetString() {
  const std::span<const std::byte> raw = GetBytes();
  return {reinterpret_cast<const char*>(raw.data()), raw.size()};
}

std::string HexBytes(std::span<const std::byte> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::byte b : bytes) {
    text += kDigits[std::to_integer<std::size_t>(b >> 4)];
    text += kDigits[std::to_integer<std::size_t>(b & std::byte{15})];
  }
  return text;
}

void RandomBytes(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t n = ::getrandom(out.data(), out.size(), 0);
    if (n < 0) {
      if (errno == EINTR) continue;
      std::abort();  // getrandom(2) without flags fails only on a bad address
    }
    out = out.subspan(static_cast<std::size_t>(n));
  }
}

}  // namespace pos
