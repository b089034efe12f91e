#include "pos/daemon/api_text.h"

#include <gtest/gtest.h>

namespace pos {
namespace {

TEST(Utf8, KnowsWhatIs) {
  for (const std::string_view good :
       {"", "a", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
        "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf",
        "gr\xc3\xbc\xc3\x9f"}) {
    EXPECT_TRUE(IsUtf8(good)) << good;
    EXPECT_EQ(ToUtf8(good), good);
  }
  for (const std::string_view bad :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xe0\x9f\xbf",
        "\xe2\x82", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\xff", "a\xc3(b"}) {
    EXPECT_FALSE(IsUtf8(bad));
    EXPECT_TRUE(IsUtf8(ToUtf8(bad)));
  }
  EXPECT_EQ(ToUtf8("a\xff\xc3\xbc\xc3"), "a\xef\xbf\xbd\xc3\xbc\xef\xbf\xbd");
}

TEST(Shorten, KeepsCharactersWhole) {
  const std::string text = "abc\xe2\x82\xac\xe2\x82\xac";  // abc€€
  for (std::size_t limit = 3; limit <= text.size(); ++limit) {
    const std::string shorter = Shorten(text, limit);
    EXPECT_LE(shorter.size(), limit);
    EXPECT_TRUE(IsUtf8(shorter));
    EXPECT_EQ(shorter == text, limit == text.size());
  }
  EXPECT_EQ(Shorten(text, 8), "abc\xe2\x80\xa6");
}

TEST(MakeUtf8, ReachesEveryString) {
  v1::PsReply reply;
  v1::Job* job = reply.add_jobs();
  job->set_command("\xff");
  job->add_devices("0");
  job->add_devices("\xfe");
  job->add_sessions()->set_session("\xfd");
  v1::CheckpointReply other;
  other.mutable_progress()->set_phase("\xff");
  v1::LogsReply bytes;
  bytes.set_data("\xff");
  for (google::protobuf::Message* message :
       {static_cast<google::protobuf::Message*>(&reply),
        static_cast<google::protobuf::Message*>(&other),
        static_cast<google::protobuf::Message*>(&bytes)}) {
    MakeUtf8(message);
  }
  const std::string replaced = "\xef\xbf\xbd";
  EXPECT_EQ(job->command(), replaced);
  EXPECT_EQ(job->devices(0), "0");
  EXPECT_EQ(job->devices(1), replaced);
  EXPECT_EQ(job->sessions(0).session(), replaced);
  EXPECT_EQ(other.progress().phase(), replaced);
  EXPECT_EQ(bytes.data(), "\xff");  // bytes stay
}

TEST(Error, SurvivesTheWay) {
  const Status status = Busy("job a is being checkpointed", "wait for it");
  const Status back = FromError(ToError(status));
  EXPECT_EQ(back.code(), Code::kBusy);
  EXPECT_EQ(back.message(), status.message());
  EXPECT_EQ(back.hint(), status.hint());
  v1::Error odd;
  odd.set_code("OK");
  EXPECT_EQ(FromError(odd).code(), Code::kInternal);
}

}  // namespace
}  // namespace pos
