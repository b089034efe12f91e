// The journal of a job: what is written is read back, whatever bytes it holds,
// and what is not whole is refused.
#include "pos/daemon/job_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace pos {
namespace {

using ::testing::HasSubstr;

JobRecord FullRecord() {
  JobRecord r;
  r.name = "train";
  r.uid = 1000;
  r.gid = 1001;
  r.argv = {"python3", "", "\x01mark", "caf\xc3\xa9", "not text \xff\xfe"};
  r.cwd = "/home/\xff";
  r.devices = {1, 0};
  r.state = "checkpointing";
  r.detached = true;
  r.started_at = 1'700'000'000'123;
  r.lineage = "0123456789abcdef";
  r.pid = 4711;
  r.ns_pid = 2;
  r.init_pid = 4710;
  r.has_exit_code = true;
  r.exit_code = 137;
  r.message = "lost \x80";
  r.image = "train-1";
  r.pin = "p0011223344556677";
  r.sessions = {{.session = 3,
                 .runner = "r7",
                 .client_pid = 4712,
                 .client_ns_pid = 5,
                 .verdict_address = 0x7fffffffffff0000,
                 .host_file = "/dev/shm/pos-1"},
                {}};
  r.epoch = 9;
  r.end_after_checkpoint = true;
  r.next_session = 4;
  r.series = "s0";
  r.series_every_ms = 1800000;
  r.series_keep = 3;
  r.series_mode = "auto";
  r.series_next_at = 1'700'000'000'999;
  r.series_last_image = "i1";
  r.series_last_error = "BUSY: \xff";
  return r;
}

TEST(JobRecord, IsReadAsItWasWritten) {
  const Result<JobRecord> read = DecodeJobRecord(EncodeJobRecord(FullRecord()));
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_TRUE(*read == FullRecord());
  const Result<JobRecord> empty = DecodeJobRecord(EncodeJobRecord({}));
  ASSERT_TRUE(empty.ok()) << empty.status().ToString();
  EXPECT_TRUE(*empty == JobRecord());
}

// Records of versions without periodic checkpoints are read as without.
TEST(JobRecord, OlderRecordsHaveNoSeries) {
  std::string text = EncodeJobRecord(FullRecord());
  for (std::size_t at = 0; (at = text.find("\"series")) != std::string::npos;) {
    const std::size_t end = text.find('\n', at);
    const std::size_t begin = text.rfind('\n', at);
    text.erase(begin, end - begin);
  }
  const Result<JobRecord> read = DecodeJobRecord(text);
  ASSERT_TRUE(read.ok()) << read.status().ToString() << text;
  EXPECT_EQ(read->series_every_ms, 0u);
  EXPECT_EQ(read->next_session, 4u);
}

// A file that was cut off, by a full disk for instance, is no record.
TEST(JobRecord, EveryCutOffTextIsRefused) {
  const std::string text = EncodeJobRecord(FullRecord());
  for (std::size_t bytes = 0; bytes < text.size(); ++bytes) {
    EXPECT_EQ(DecodeJobRecord(text.substr(0, bytes)).status().code(),
              Code::kCorrupt)
        << bytes;
  }
}

TEST(JobRecord, AFieldThatIsMissingOrOddIsNamed) {
  std::string text = EncodeJobRecord(FullRecord());
  const std::size_t at = text.find("\"epoch\": 9");
  ASSERT_NE(at, std::string::npos) << text;
  std::string without = text;
  without.replace(at, 7, "\"epoxy\"");
  EXPECT_THAT(DecodeJobRecord(without).status().message(), HasSubstr("epoch"));
  std::string odd = text;
  odd.replace(at, 10, "\"epoch\":[]");
  EXPECT_EQ(DecodeJobRecord(odd).status().code(), Code::kCorrupt);
}

}  // namespace
}  // namespace pos
