#include "pos/cli/text.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>

namespace pos::cli {
namespace {

TEST(FormatBytes, ShowsThreeDigitsAtEveryMagnitude) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1 KiB");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(10 * 1024 + 512), "10.5 KiB");
  EXPECT_EQ(FormatBytes((1u << 20) - 1), "1 MiB");
  EXPECT_EQ(FormatBytes(151'397'597'184), "141 GiB");
  EXPECT_EQ(FormatBytes(~std::uint64_t{0}), "16 EiB");
}

TEST(FormatBytes, NeverNeedsMoreThanTwoUnitsNeighboursDigits) {
  // Around every border: digits stay at most four with their point.
  for (int bits = 10; bits < 64; ++bits) {
    const std::uint64_t at = std::uint64_t{1} << bits;
    for (const std::uint64_t bytes : {at - 1, at, at + 1, at - at / 1000}) {
      const std::string text = FormatBytes(bytes);
      EXPECT_LE(text.find(' '), 4u) << text;
    }
  }
}

TEST(FormatDuration, ChoosesTheUnit) {
  EXPECT_EQ(FormatDuration(0), "0 us");
  EXPECT_EQ(FormatDuration(999), "999 us");
  EXPECT_EQ(FormatDuration(1000), "1.00 ms");
  EXPECT_EQ(FormatDuration(999'499), "999 ms");
  EXPECT_EQ(FormatDuration(999'500), "1.00 s");
  EXPECT_EQ(FormatDuration(59'949'999), "59.9 s");
  EXPECT_EQ(FormatDuration(59'950'000), "1 min 00 s");
  EXPECT_EQ(FormatDuration(185'000'000), "3 min 05 s");
  EXPECT_EQ(FormatDuration(3'600'000'000), "1 h 00 min");
  EXPECT_EQ(FormatDuration(86'400'000'000), "1 d 00 h");
}

TEST(FormatAge, IsRough) {
  EXPECT_EQ(FormatAge(0, 1000), "-");
  EXPECT_EQ(FormatAge(2000, 1000), "0 s");  // clocks differ
  EXPECT_EQ(FormatAge(1, 59'999), "59 s");
  EXPECT_EQ(FormatAge(1, 60'001), "1 min");
  EXPECT_EQ(FormatAge(1, 3'600'001), "1 h");
  EXPECT_EQ(FormatAge(1, 47 * 3'600'000 + 1), "47 h");
  EXPECT_EQ(FormatAge(1, 48ull * 3'600'000 + 1), "2 d");
}

TEST(FormatTime, IsLocal) {
  ::setenv("TZ", "UTC-2", 1);
  ::tzset();
  EXPECT_EQ(FormatTime(0), "-");
  EXPECT_EQ(FormatTime(1'769'868'307'999), "2026-01-31 16:05:07");
}

TEST(Printable, LeavesNothingThatSteersATerminal) {
  EXPECT_EQ(Printable("a\x1b[31mb\r\n\t\x7f"), "a?[31mb????");
  EXPECT_EQ(Printable("\xc2\x9b"), "?");  // CSI as one character
  EXPECT_EQ(Printable("\xc2\xa3 \xe2\x82\xac"), "\xc2\xa3 \xe2\x82\xac");
  EXPECT_EQ(PrintableLines("a\nb\tc\x1b"), "a\nb\tc?");
}

TEST(Table, AlignsAndLeavesNoTrailingBlanks) {
  Table table({{"JOB"}, {"PID", Table::Align::kRight}, {"NOTE"}});
  table.AddRow({"a", "7", ""});
  table.AddRow({"l\xc3\xa4nger", "12345", "x\ny"});
  EXPECT_EQ(table.Render(),
            "JOB       PID  NOTE\n"
            "a           7  -\n"
            "l\xc3\xa4nger  12345  x?y\n");
}

TEST(Table, WithoutRowsIsItsTitles) {
  EXPECT_EQ(Table({{"A"}, {"B"}}).Render(), "A  B\n");
}

}  // namespace
}  // namespace pos::cli
