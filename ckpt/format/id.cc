#include "ckpt/format/id.h"

#include <algorithm>

#include "pos/base/bytes.h"

namespace pos::ckpt {
namespace {

// Crockford's base 32: no i, l, o, u; ascending in ASCII.
constexpr std::string_view kDigits = "0123456789abcdefghjkmnpqrstvwxyz";
constexpr std::uint64_t kEpoch2020Ms = 1577836800000;
constexpr std::size_t kImageIdLength = 11;

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

StoreId NewStoreId() {
  StoreId id;
  RandomBytes(id.bytes);
  return id;
}

PackId NewPackId() {
  PackId id;
  RandomBytes(id.bytes);
  return id;
}

std::string PackName(const PackId& id) { return HexBytes(id.bytes); }

Result<PackId> ParsePackName(std::string_view name) {
  PackId id;
  if (name.size() != 2 * id.bytes.size()) {
    return Invalid("a pack's name has 32 hexadecimal digits, not " +
                   std::to_string(name.size()) + " characters");
  }
  for (std::size_t i = 0; i < id.bytes.size(); ++i) {
    const int high = HexValue(name[2 * i]);
    const int low = HexValue(name[2 * i + 1]);
    if (high < 0 || low < 0) {
      return Invalid("a pack's name has 32 hexadecimal digits");
    }
    id.bytes[i] = static_cast<std::byte>(high * 16 + low);
  }
  return id;
}

std::string NewImageId(std::uint64_t now_ms) {
  std::array<std::byte, 2> random;
  RandomBytes(random);
  std::uint64_t value = now_ms > kEpoch2020Ms ? now_ms - kEpoch2020Ms : 0;
  value = (value << 10) | (std::to_integer<std::uint64_t>(random[0]) << 2) |
          (std::to_integer<std::uint64_t>(random[1]) & 3);
  std::string id(kImageIdLength, 'i');
  for (std::size_t i = kImageIdLength; --i > 0; value >>= 5) {
    id[i] = kDigits[value & 31];
  }
  return id;
}

bool IsImageId(std::string_view id) {
  return id.size() == kImageIdLength && id[0] == 'i' &&
         std::all_of(id.begin() + 1, id.end(), [](char c) {
           return kDigits.find(c) != std::string_view::npos;
         });
}

}  // namespace pos::ckpt
