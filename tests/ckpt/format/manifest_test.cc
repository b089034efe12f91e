#include "ckpt/format/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/ckpt/testing.h"

namespace pos::ckpt {
namespace {

using ::testing::HasSubstr;

const StoreId kStore = NewStoreId();

Manifest FullManifest() {
  Manifest m;
  m.image = NewImageId(1800000000000);
  m.owner_uid = 1000;
  m.owner_gid = 100;
  m.created_ms = 1800000000000;
  m.mode = CheckpointMode::kCow;
  m.digest_seed = 77;
  m.chunk_bytes = 2u << 20;
  m.tag = "nightly";
  m.reason = "dirty rate below half of the disk's";
  m.job = {"train",
           "/home/u",
           {"python3", "train.py", "", "--x=\n"},
           "0123456789abcdef",
           99,
           1,
           1234,
           JobStdio::kTerminal};
  m.host = {"0.1.0", "6.18.0", "x86_64", "EPYC", "avx2 bmi2", "4.1.1", "node7"};
  m.totals = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  DeviceRecord device;
  device.ordinal = 1;
  device.multiprocessors = 132;
  device.cc_major = 9;
  device.memory_bytes = std::uint64_t{141} << 30;
  device.uuid[3] = std::byte{9};
  device.kind = "sim";
  device.name = "POS Simulated Device";
  device.architecture = "sm_90";
  device.driver = "13000";
  m.devices = {device, device};
  m.open_files = {{"/data/log", std::uint64_t{5} << 40, 123, 0x401}};
  SessionRecord session;
  session.number = 3;
  session.client_ns_pid = 17;
  session.live_bytes = std::uint64_t{1} << 40;
  session.arena_base = 0x200000000000;
  session.devices = {0, 1};
  session.packs = {1};
  session.name = "s3";
  session.index = "session-3.idx";
  session.shim_build_id = "abcdef";
  session.index_digest.bytes[15] = std::byte{1};
  m.sessions = {session};
  m.packs = {{NewPackId(), 4096, 1, 2, true}, {NewPackId(), 8192, 3, 4, false}};
  m.files = {{"criu/pages-1.img", std::uint64_t{6} << 32, 0600, {}},
             {"criu/core-1.img", 0, 0600, {}}};
  m.attachments = {{"limits", std::string("a\0b", 3)}};
  return m;
}

Bytes Encode(const Manifest& m) {
  const UniqueFd fd = MemFile();
  const Status status = WriteManifest(m, kStore, fd.get(), "manifest");
  EXPECT_TRUE(status.ok()) << status.ToString();
  return ContentOf(fd.get());
}

Result<Manifest> Decode(const Bytes& bytes) {
  SpanSource source(bytes);
  return ReadManifest(&source, "manifest");
}

TEST(Manifest, ComesBackWhole) {
  const Manifest m = FullManifest();
  const Bytes bytes = Encode(m);
  SpanSource source(bytes);
  FileHeader header;
  const Result<Manifest> got = ReadManifest(&source, "manifest", &header);
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  EXPECT_EQ(*got, m);
  EXPECT_EQ(header.store, kStore);
  EXPECT_EQ(header.writer, WriterVersion());
}

TEST(Manifest, TakesAnArgumentListOfSixMegabytes) {
  Manifest m = FullManifest();
  m.job.argv.assign(6, std::string(1u << 20, 'x'));
  const Result<Manifest> got = Decode(Encode(m));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->job.argv.size(), 6u);
}

TEST(Manifest, CutOrChangedAnywhereIsCorrupt) {
  Bytes bytes = Encode(FullManifest());
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    const Bytes cut(bytes.begin(),
                    bytes.begin() + static_cast<std::ptrdiff_t>(at));
    ASSERT_EQ(Decode(cut).status().code(), Code::kCorrupt) << at;
    const auto bit = static_cast<std::byte>(1 << (at % 8));
    bytes[at] ^= bit;
    ASSERT_EQ(Decode(bytes).status().code(), Code::kCorrupt) << at;
    bytes[at] ^= bit;
  }
}

// A manifest as a later POS would write it: known records with more fields, an
// unknown optional record, and on request an unknown required one.
Bytes LaterManifest(bool required) {
  const Bytes now = Encode(FullManifest());
  SpanSource source(now);
  auto reader = RecordReader::Open(&source, FileKind::kManifest, "manifest");
  const UniqueFd fd = MemFile();
  RecordWriter writer(fd.get(), "manifest", FileKind::kManifest, kStore, 1);
  for (Record record; *(*reader)->Next(&record);) {
    Bytes payload(record.payload.begin(), record.payload.end());
    payload.resize(payload.size() + 24, std::byte{0x5a});
    EXPECT_TRUE(writer.Append(record.type, 0, payload).ok());
    EXPECT_TRUE(writer.Append(0x7777, kRecordOptional, payload).ok());
  }
  if (required) {
    EXPECT_TRUE(writer.Append(0x0123, 0, {}).ok());
  }
  EXPECT_TRUE(writer.Finish().ok());
  return ContentOf(fd.get());
}

TEST(Manifest, OfALaterPosIsReadAsFarAsKnown) {
  const Result<Manifest> got = Decode(LaterManifest(false));
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  EXPECT_EQ(got->job, FullManifest().job);
  EXPECT_EQ(got->sessions, FullManifest().sessions);
}

TEST(Manifest, WithAnUnknownRequiredRecordIsRefusedNamingBoth) {
  const Status status = Decode(LaterManifest(true)).status();
  EXPECT_EQ(status.code(), Code::kIncompatible);
  EXPECT_THAT(status.message(), HasSubstr("type 0x123"));
  EXPECT_THAT(status.message(), HasSubstr("format version 1"));
  EXPECT_THAT(status.message(),
              HasSubstr("written by POS " + std::string(WriterVersion())));
  EXPECT_THAT(status.message(),
              HasSubstr("this is POS " + std::string(WriterVersion())));
}

TEST(Manifest, RefusesToWriteWhatItWouldNotRead) {
  const auto refused = [](auto change) {
    Manifest m = FullManifest();
    change(m);
    const UniqueFd fd = MemFile();
    return WriteManifest(m, kStore, fd.get(), "manifest").code() ==
           Code::kInvalid;
  };
  EXPECT_FALSE(refused([](Manifest&) {}));
  EXPECT_TRUE(refused([](Manifest& m) { m.image = "../../etc"; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.chunk_bytes = 3; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.files[0].path = "criu/../../x"; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.files[0].path = "/etc/passwd"; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.files[0].path = "manifest"; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.files[1].path = m.files[0].path; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.sessions[0].index = "a/b"; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.sessions[0].index = ".."; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.packs[1].pack = m.packs[0].pack; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.sessions[0].packs = {2}; }));
}

TEST(ImageId, SortsByAgeAndIsSafe) {
  std::string last;
  for (const std::uint64_t ms :
       {std::uint64_t{0}, std::uint64_t{1577836800001},
        std::uint64_t{1700000000000}, std::uint64_t{1700000000001},
        std::uint64_t{2600000000000}}) {
    const std::string id = NewImageId(ms);
    EXPECT_TRUE(IsImageId(id)) << id;
    EXPECT_LT(last, id);
    last = id;
  }
  EXPECT_FALSE(IsImageId(""));
  EXPECT_FALSE(IsImageId("i0000000000/"));
  EXPECT_FALSE(IsImageId("x0000000000"));
  EXPECT_FALSE(IsImageId("i000000000u"));
}

TEST(PackName, MapsBack) {
  const PackId id = NewPackId();
  EXPECT_EQ(*ParsePackName(PackName(id)), id);
  EXPECT_FALSE(ParsePackName("").ok());
  EXPECT_FALSE(ParsePackName(std::string(32, 'g')).ok());
  EXPECT_FALSE(ParsePackName(std::string(32, 'A')).ok());
}

}  // namespace
}  // namespace pos::ckpt
