#include "pos/cli/text.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <utility>

namespace pos::cli {
namespace {

// Three significant digits: 1.23, 12.3, 123.
std::string ThreeDigits(double value) {
  // The next digit would round up to one more place.
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.*f", decimals, value);
  return text.data();
}

std::string TwoDigits(std::uint64_t value) {
  return (value < 10 ? "0" : "") + std::to_string(value);
}

std::string PrintableImpl(std::string_view text, bool keep_lines) {
  std::string result(text);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const auto byte = static_cast<unsigned char>(result[i]);
    const bool line_end = byte == '\n' || byte == '\t';
    // C1 controls are two bytes in UTF-8: 0xc2 0x80 to 0xc2 0x9f.
    const bool c1 = byte == 0xc2 && i + 1 < result.size() &&
                    static_cast<unsigned char>(result[i + 1]) < 0xa0;
    if (c1) {
      result.replace(i, 2, "?");
    } else if ((byte < 0x20 && !(keep_lines && line_end)) || byte == 0x7f) {
      result[i] = '?';
    }
  }
  return result;
}

}  // namespace

std::string FormatBytes(std::uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  static constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB",
                                                        "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1023.5 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::string digits = ThreeDigits(value);
  // Round values without decimals: "16 KiB".
  if (digits.find('.') != std::string::npos) {
    while (digits.back() == '0') digits.pop_back();
    if (digits.back() == '.') digits.pop_back();
  }
  return digits + " " + kUnits[unit];
}

std::string FormatDuration(std::uint64_t duration_us) {
  if (duration_us < 1000) return std::to_string(duration_us) + " us";
  if (duration_us < 999'500) {
    return ThreeDigits(static_cast<double>(duration_us) / 1e3) + " ms";
  }
  if (duration_us < 59'950'000) {
    return ThreeDigits(static_cast<double>(duration_us) / 1e6) + " s";
  }
  const std::uint64_t seconds = (duration_us + 500'000) / 1'000'000;
  if (seconds < 3600) {
    return std::to_string(seconds / 60) + " min " + TwoDigits(seconds % 60) +
           " s";
  }
  const std::uint64_t minutes = seconds / 60;
  if (minutes < 24 * 60) {
    return std::to_string(minutes / 60) + " h " + TwoDigits(minutes % 60) +
           " min";
  }
  const std::uint64_t hours = minutes / 60;
  return std::to_string(hours / 24) + " d " + TwoDigits(hours % 24) + " h";
}

std::string FormatAge(std::uint64_t then_ms, std::uint64_t now_ms) {
  if (then_ms == 0) return "-";
  const std::uint64_t seconds =
      now_ms > then_ms ? (now_ms - then_ms) / 1000 : 0;
  if (seconds < 60) return std::to_string(seconds) + " s";
  if (seconds < 3600) return std::to_string(seconds / 60) + " min";
  if (seconds < 48 * 3600) return std::to_string(seconds / 3600) + " h";
  return std::to_string(seconds / 86400) + " d";
}

std::string FormatTime(std::uint64_t epoch_ms) {
  if (epoch_ms == 0) return "-";
  const auto seconds = static_cast<std::time_t>(epoch_ms / 1000);
  std::tm local{};
  if (::localtime_r(&seconds, &local) == nullptr) return "-";
  std::array<char, 64> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &local);
  return text.data();
}

std::string Printable(std::string_view text) {
  return PrintableImpl(text, false);
}

std::string PrintableLines(std::string_view text) {
  return PrintableImpl(text, true);
}

std::size_t TextWidth(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(),
      [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u; }));
}

void Table::AddRow(std::vector<std::string> cells) {
  for (std::string& cell : cells) {
    cell = cell.empty() ? "-" : Printable(cell);
  }
  cells.resize(columns_.size(), "-");
  rows_.push_back(std::move(cells));
}

std::string Table::Render() const {
  std::vector<std::size_t> widths;
  std::vector<std::string> titles;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    titles.push_back(columns_[i].title);
    std::size_t width = TextWidth(titles.back());
    for (const auto& row : rows_) width = std::max(width, TextWidth(row[i]));
    widths.push_back(width);
  }
  std::string text;
  AppendLine(titles, widths, &text);
  for (const auto& row : rows_) AppendLine(row, widths, &text);
  return text;
}

void Table::AppendLine(const std::vector<std::string>& cells,
                       const std::vector<std::size_t>& widths,
                       std::string* text) const {
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (i > 0) *text += "  ";
    const std::string blanks(widths[i] - TextWidth(cells[i]), ' ');
    const bool right = columns_[i].align == Align::kRight;
    *text += right ? blanks + cells[i] : cells[i] + blanks;
  }
  while (!text->empty() && text->back() == ' ') text->pop_back();
  *text += '\n';
}

}  // namespace pos::cli
