#include "ckpt/format/handle_summary.h"

#include <gtest/gtest.h>

namespace pos::ckpt {
namespace {

HandleSummary Sample() {
  HandleSummary summary;
  summary.kinds = {{"context", 1, 40}, {"physical memory", 3, 5000}};
  summary.largest = {{"module", 77, 5, 4000}, {"context", 5, 0, 40}};
  return summary;
}

TEST(HandleSummary, ReadsAsItWasWritten) {
  const auto read = DecodeHandleSummary(EncodeHandleSummary(Sample()));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, Sample());
}

TEST(HandleSummary, RefusesWhatIsCutShort) {
  const std::vector<std::byte> whole = EncodeHandleSummary(Sample());
  for (std::size_t keep = 0; keep < whole.size(); ++keep) {
    SCOPED_TRACE(keep);
    EXPECT_EQ(DecodeHandleSummary(std::span(whole).first(keep)).status().code(),
              Code::kCorrupt);
  }
}

TEST(HandleSummary, RefusesNamesThatSteerATerminal) {
  for (const std::string& name :
       {std::string(), std::string("\x1b[2J"), std::string("a\nb"),
        std::string("Stream"), std::string(65, 'a')}) {
    HandleSummary summary = Sample();
    summary.kinds[0].kind = name;
    EXPECT_FALSE(DecodeHandleSummary(EncodeHandleSummary(summary)).ok());
    summary = Sample();
    summary.largest[1].kind = name;
    EXPECT_FALSE(DecodeHandleSummary(EncodeHandleSummary(summary)).ok());
  }
}

TEST(HandleSummary, RefusesCountsThatAreTooLarge) {
  HandleSummary summary;
  summary.kinds.resize(kMaxHandleKinds + 1, {"context", 1, 1});
  EXPECT_FALSE(DecodeHandleSummary(EncodeHandleSummary(summary)).ok());
  summary = {};
  summary.largest.resize(kMaxLargestHandles + 1, {"context", 1, 1, 1});
  EXPECT_FALSE(DecodeHandleSummary(EncodeHandleSummary(summary)).ok());
}

}  // namespace
}  // namespace pos::ckpt
