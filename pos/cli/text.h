// Numbers, times and tables for people to read.
//
// Test: tests/pos/cli/text_test.cc
#ifndef POS_CLI_TEXT_H_
#define POS_CLI_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pos::cli {

// "512 B", "1.5 KiB", "141 GiB": three digits.
[[nodiscard]] std::string FormatBytes(std::uint64_t bytes);
// "850 us", "12.3 ms", "4.56 s", "3 min 05 s", "2 h 07 min", "3 d 04 h".
[[nodiscard]] std::string FormatDuration(std::uint64_t duration_us);
// How long ago, roughly: "12 s", "3 min", "5 h", "40 d"; "-" when `then_ms` is
// 0, "0 s" when it is to come.
[[nodiscard]] std::string FormatAge(std::uint64_t then_ms,
                                    std::uint64_t now_ms);
// "2026-01-31 14:05:07", local time; "-" for 0.
[[nodiscard]] std::string FormatTime(std::uint64_t epoch_ms);
// `text` for a terminal or a table: control characters, line ends among them,
// become "?", so that nobody's file name can steer the terminal.
[[nodiscard]] std::string Printable(std::string_view text);
// The same for a text of several lines, which stay.
[[nodiscard]] std::string PrintableLines(std::string_view text);
// Columns that a UTF-8 text takes, at one each.
[[nodiscard]] std::size_t TextWidth(std::string_view text);

// Columns as wide as their widest cell, two blanks apart.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // As many cells as there are columns. An empty cell shows as "-".
  void AddRow(std::vector<std::string> cells);
  // Lines, each with its end and without trailing blanks.
  [[nodiscard]] std::string Render() const;

 private:
  void AppendLine(const std::vector<std::string>& cells,
                  const std::vector<std::size_t>& widths,
                  std::string* text) const;

  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace pos::cli

#endif  // POS_CLI_TEXT_H_
