#include "pos/cli/progress.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace pos::cli {
namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr std::uint64_t kMiB = 1 << 20;

struct Written {
  std::vector<std::string> pieces;
  std::uint64_t now_ns = kSecondNs;

  ProgressLine Line(ProgressLine::Style style, std::size_t columns = 80) {
    return {style, "checkpoint of a", columns,
            [this](std::string_view text) { pieces.emplace_back(text); },
            [this] { return now_ns; }};
  }
};

TEST(RenderProgress, ShowsWhatIsKnown) {
  EXPECT_EQ(RenderProgress({"dump", 0, 0}, 0, 80), "dump");
  EXPECT_EQ(RenderProgress({"dump", 5 * kMiB, 0}, 0, 80), "dump  5 MiB");
  EXPECT_EQ(RenderProgress({"copy", kMiB, 2 * kMiB}, 3.0 * kMiB, 80),
            "copy  [===========>          ]   50%  1 MiB of 2 MiB  3 MiB/s");
  EXPECT_EQ(RenderProgress({"copy", 3 * kMiB, 2 * kMiB}, 0, 80),
            "copy  [======================]  100%  3 MiB of 2 MiB");
}

TEST(RenderProgress, FitsIntoAnyWidth) {
  for (std::size_t columns = 1; columns < 90; ++columns) {
    const std::string text =
        RenderProgress({"host memory", kMiB, 2 * kMiB}, 1e6, columns);
    EXPECT_LE(text.size(), columns);
    EXPECT_FALSE(text.empty());
  }
}

TEST(ProgressLine, RedrawsOneLineAndClearsIt) {
  Written written;
  {
    ProgressLine line = written.Line(ProgressLine::Style::kRedraw);
    line.Update({"copy", 0, 4 * kMiB});
    written.now_ns += 1;  // too soon for another
    line.Update({"copy", kMiB, 4 * kMiB});
    written.now_ns += kSecondNs;
    line.Update({"copy", 2 * kMiB, 4 * kMiB});
    line.Update({"seal", 0, 0});  // a phase is shown at once
    ASSERT_EQ(written.pieces.size(), 3u);
    EXPECT_EQ(written.pieces[0].substr(0, 8), "\r\x1b[Kcopy");
    EXPECT_NE(written.pieces[1].find("50%"), std::string::npos);
    EXPECT_NE(written.pieces[1].find("2 MiB/s"), std::string::npos);
    EXPECT_EQ(written.pieces[2], "\r\x1b[Kseal");
    line.Clear();
    line.Clear();
  }
  ASSERT_EQ(written.pieces.size(), 4u);
  EXPECT_EQ(written.pieces[3], "\r\x1b[K");
}

TEST(ProgressLine, WritesALineNowAndThenElsewhere) {
  Written written;
  ProgressLine line = written.Line(ProgressLine::Style::kLines);
  for (int i = 0; i <= 100; ++i) {
    line.Update({"copy", static_cast<std::uint64_t>(i) * kMiB, 100 * kMiB});
    written.now_ns += kSecondNs / 10;
  }
  line.Clear();
  ASSERT_EQ(written.pieces.size(), 3u);  // at 0, 5 and 10 s
  EXPECT_EQ(written.pieces[0].substr(0, 21), "checkpoint of a: copy");
  EXPECT_EQ(written.pieces[0].back(), '\n');
}

TEST(ProgressLine, SaysNothingWhenTold) {
  Written written;
  ProgressLine line = written.Line(ProgressLine::Style::kNone);
  line.Update({"copy", 1, 2});
  line.Clear();
  EXPECT_TRUE(written.pieces.empty());
  EXPECT_EQ(ProgressLine::StyleForStderr(true), ProgressLine::Style::kNone);
}

}  // namespace
}  // namespace pos::cli
