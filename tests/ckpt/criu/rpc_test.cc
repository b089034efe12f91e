#include "ckpt/criu/rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "ckpt/criu/wire.h"

namespace pos {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

struct Decoded {
  std::map<std::uint32_t, std::uint64_t> numbers;
  std::multimap<std::uint32_t, std::string> bytes;
};

Decoded Decode(std::string_view message) {
  Decoded decoded;
  WireReader reader(message);
  while (reader.Next()) {
    if (reader.type() == WireReader::Type::kBytes) {
      decoded.bytes.emplace(reader.field(), reader.bytes());
    } else {
      decoded.numbers[reader.field()] = reader.number();
    }
  }
  EXPECT_TRUE(reader.ok());
  return decoded;
}

TEST(CriuRpc, DumpLeavesTheTreeRunningAndNamesTerminals) {
  CriuDumpRequest request;
  request.places = {200, 201, "dump.log", 2};
  request.pid = 1001;
  request.external = {"tty[8801:1a]"};
  const Decoded outer = Decode(EncodeCriuDump(request));
  EXPECT_EQ(outer.numbers.at(1), 1u);
  const Decoded opts = Decode(outer.bytes.find(2)->second);
  EXPECT_EQ(opts.numbers.at(1), 200u);
  EXPECT_EQ(opts.numbers.at(2), 1001u);
  EXPECT_EQ(opts.numbers.at(3), 1u);   // leave running
  EXPECT_EQ(opts.numbers.at(8), 1u);   // file locks
  EXPECT_EQ(opts.numbers.at(12), 1u);  // notifications
  EXPECT_EQ(opts.numbers.at(17), 201u);
  EXPECT_EQ(opts.numbers.at(18), 1u);  // link remaps
  EXPECT_EQ(opts.numbers.at(34), 0u);  // cgroups: ignore
  EXPECT_EQ(opts.numbers.at(35), kCriuGhostLimitBytes);
  EXPECT_EQ(opts.numbers.count(5), 0u);  // established TCP: refused
  EXPECT_EQ(opts.bytes.find(10)->second, "dump.log");
  EXPECT_EQ(opts.bytes.find(37)->second, "tty[8801:1a]");
}

TEST(CriuRpc, RestoreMakesASiblingAndInheritsDescriptors) {
  CriuRestoreRequest request;
  request.inherit = {{"pipe:[12]", 300}, {"dev/shm/x", 301}};
  const Decoded outer = Decode(EncodeCriuRestore(request));
  EXPECT_EQ(outer.numbers.at(1), 2u);
  const Decoded opts = Decode(outer.bytes.find(2)->second);
  EXPECT_EQ(opts.numbers.at(26), 1u);
  std::vector<std::pair<std::string, std::uint64_t>> inherit;
  const auto [begin, end] = opts.bytes.equal_range(27);
  for (auto it = begin; it != end; ++it) {
    const Decoded one = Decode(it->second);
    inherit.emplace_back(one.bytes.find(1)->second, one.numbers.at(2));
  }
  EXPECT_THAT(inherit,
              ElementsAre(Pair("pipe:[12]", 300u), Pair("dev/shm/x", 301u)));
}

// Bytes that CRIU 4.1.1 sent.
TEST(CriuRpc, ReadsNotificationsAndAnswers) {
  const Result<CriuResponse> notify =
      DecodeCriuResponse({"\x08\x06\x10\x01*\x0b\n\tpost-dump", 17});
  ASSERT_TRUE(notify.ok());
  EXPECT_TRUE(notify->notification);
  EXPECT_EQ(notify->script, "post-dump");
  const Result<CriuResponse> restored =
      DecodeCriuResponse({"\x08\x02\x10\x01\"\x03\x08\x93\x08", 9});
  ASSERT_TRUE(restored.ok());
  EXPECT_FALSE(restored->notification);
  EXPECT_TRUE(restored->success);
  EXPECT_EQ(restored->restored_pid, 1043);
  EXPECT_FALSE(DecodeCriuResponse("\x0a\xff").ok());
  EXPECT_FALSE(DecodeCriuResponse("").ok());
}

TEST(CriuRpc, NotifyReplyCarriesTheDecision) {
  EXPECT_EQ(Decode(EncodeCriuNotifyReply(true)).numbers.at(3), 1u);
  EXPECT_EQ(Decode(EncodeCriuNotifyReply(false)).numbers.at(3), 0u);
}

}  // namespace
}  // namespace pos
