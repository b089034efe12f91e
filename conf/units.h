// Sizes and durations as people write them: "64MiB", "30s".
#ifndef CONF_UNITS_H_
#define CONF_UNITS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pos::conf {

inline constexpr std::uint64_t kKiB = std::uint64_t{1} << 10;
inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
inline constexpr std::uint64_t kTiB = std::uint64_t{1} << 40;

// Decimal or 0x… digits; nothing for anything else or above 64 bits.
[[nodiscard]] std::optional<std::uint64_t> ParseNumber(std::string_view text);
// A whole number and B, KiB, MiB, GiB, TiB, kB, MB, GB or TB; or a bare number
// of bytes.
[[nodiscard]] std::optional<std::uint64_t> ParseBytes(std::string_view text);
// A whole number and ms, s, m, h or d, in milliseconds.
[[nodiscard]] std::optional<std::uint64_t> ParseTimeMs(std::string_view text);

// In the largest unit that divides it: what the parsers take.
[[nodiscard]] std::string FormatBytes(std::uint64_t bytes);
[[nodiscard]] std::string FormatTimeMs(std::uint64_t ms);
[[nodiscard]] std::string FormatAddress(std::uint64_t address);

}  // namespace pos::conf

#endif  // CONF_UNITS_H_
