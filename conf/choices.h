// The sets of words that options choose from.
#ifndef CONF_CHOICES_H_
#define CONF_CHOICES_H_

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

namespace pos::conf {

enum class DeviceKind { kAuto, kSim, kCuda };
enum class LogLevelChoice { kDebug, kInfo, kWarning, kError, kOff };
enum class CompressChoice { kAuto, kNone, kZstd, kLz4 };

// The words of an enum, in the order of its values.
template <typename E>
inline constexpr std::array<std::string_view, 0> kWords = {};
template <>
inline constexpr std::array<std::string_view, 3> kWords<DeviceKind> = {
    "auto", "sim", "cuda"};
template <>
inline constexpr std::array<std::string_view, 5> kWords<LogLevelChoice> = {
    "debug", "info", "warning", "error", "off"};
template <>
inline constexpr std::array<std::string_view, 4> kWords<CompressChoice> = {
    "auto", "none", "zstd", "lz4"};

template <typename E>
[[nodiscard]] constexpr std::string_view Word(E value) {
  return kWords<E>[static_cast<std::size_t>(value)];
}

}  // namespace pos::conf

#endif  // CONF_CHOICES_H_
