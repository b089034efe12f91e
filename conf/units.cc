#include "conf/units.h"

#include <array>
#include <charconv>

namespace pos::conf {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::array<Unit, 9> kByteUnits = {{
    {"TiB", kTiB},
    {"GiB", kGiB},
    {"MiB", kMiB},
    {"KiB", kKiB},
    {"TB", 1000000000000},
    {"GB", 1000000000},
    {"MB", 1000000},
    {"kB", 1000},
    {"B", 1},
}};
constexpr std::array<Unit, 5> kTimeUnits = {{
    {"d", 86400000},
    {"h", 3600000},
    {"m", 60000},
    {"s", 1000},
    {"ms", 1},
}};

template <std::size_t kCount>
std::optional<std::uint64_t> ParseWithUnit(
    std::string_view text, const std::array<Unit, kCount>& units) {
  std::size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') {
    ++digits;
  }
  const std::optional<std::uint64_t> number =
      ParseNumber(text.substr(0, digits));
  std::string_view unit = text.substr(digits);
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  for (const Unit& known : units) {
    if (unit != known.name) continue;
    std::uint64_t product = 0;
    if (!number.has_value() ||
        __builtin_mul_overflow(*number, known.factor, &product)) {
      return std::nullopt;
    }
    return product;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::uint64_t> ParseNumber(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x")) {
    base = 16;
    text.remove_prefix(2);
  }
  std::uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

std::optional<std::uint64_t> ParseBytes(std::string_view text) {
  const std::optional<std::uint64_t> bare = ParseNumber(text);
  return bare.has_value() ? bare : ParseWithUnit(text, kByteUnits);
}

std::optional<std::uint64_t> ParseTimeMs(std::string_view text) {
  return ParseWithUnit(text, kTimeUnits);
}

std::string FormatBytes(std::uint64_t bytes) {
  for (std::size_t i = 0; i < 4 && bytes != 0; ++i) {
    if (bytes % kByteUnits[i].factor == 0) {
      return std::to_string(bytes / kByteUnits[i].factor) +
             std::string(kByteUnits[i].name);
    }
  }
  return std::to_string(bytes);
}

std::string FormatTimeMs(std::uint64_t ms) {
  // Seconds for zero: "0s" reads better than "0d".
  for (std::size_t i = ms == 0 ? 3 : 0; i < kTimeUnits.size(); ++i) {
    if (ms % kTimeUnits[i].factor == 0) {
      return std::to_string(ms / kTimeUnits[i].factor) +
             std::string(kTimeUnits[i].name);
    }
  }
  return {};
}

std::string FormatAddress(std::uint64_t address) {
  std::array<char, 16> digits;
  const auto [end, error] =
      std::to_chars(digits.data(), digits.data() + digits.size(), address, 16);
  return "0x" + std::string(digits.data(), end);
}

}  // namespace pos::conf
