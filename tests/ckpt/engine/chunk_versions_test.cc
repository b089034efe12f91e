// Versions of chunks against a plain table of them, their bounds, and as a
// watch of a session that works.
#include "ckpt/engine/chunk_versions.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "tests/support/random.h"
#include "tests/support/session_client.h"
#include "tests/support/sim_session.h"

namespace pos::ckpt {
namespace {

constexpr std::uint64_t kChunk = 4096;

class Recorder {
 public:
  explicit Recorder(ChunkVersions* versions) : versions_(versions) {}
  void Write(std::uint64_t pc, std::vector<MemoryRange> ranges,
             AccessBasis basis = AccessBasis::kProven) {
    AccessSet set;
    set.basis = basis;
    set.writes = std::move(ranges);
    versions_->Record({.pc = pc, .what = "test", .set = &set});
  }

 private:
  ChunkVersions* const versions_;
};

TEST(ChunkVersions, AWriteCountsForItsWholeChunk) {
  ChunkVersions versions(kChunk);
  Recorder record(&versions);
  EXPECT_EQ(versions.LastWriter({0, ~0ull}), 0u);
  record.Write(5, {{10 * kChunk + 100, 1}});
  EXPECT_EQ(versions.LastWriter({10 * kChunk, 1}), 5u);
  EXPECT_EQ(versions.LastWriter({11 * kChunk - 1, 1}), 5u);
  EXPECT_EQ(versions.LastWriter({11 * kChunk, 1}), 0u);
  EXPECT_EQ(versions.LastWriter({9 * kChunk, kChunk}), 0u);
  EXPECT_EQ(versions.LastWriter({0, 100 * kChunk}), 5u);
  record.Write(6, {{11 * kChunk - 1, 2}});
  EXPECT_EQ(versions.LastWriter({10 * kChunk, 1}), 6u);
  EXPECT_EQ(versions.LastWriter({12 * kChunk - 1, 1}), 6u);
  EXPECT_TRUE(versions.MayBeWritten({11 * kChunk, 5}, 5));
  EXPECT_FALSE(versions.MayBeWritten({11 * kChunk, 5}, 6));
  record.Write(7, {{3, 0}});
  EXPECT_EQ(versions.LastWriter({0, kChunk}), 0u) << "no bytes, no write";
}

TEST(ChunkVersions, AnUnknownCallMayHaveWrittenEverything) {
  ChunkVersions versions(kChunk);
  Recorder record(&versions);
  record.Write(1, {{0, kChunk}});
  record.Write(2, {}, AccessBasis::kUnknown);
  record.Write(3, {{8 * kChunk, kChunk}}, AccessBasis::kGuessed);
  EXPECT_EQ(versions.LastWriter({0, 1}), 2u);
  EXPECT_EQ(versions.LastWriter({8 * kChunk, 1}), 3u);
  EXPECT_EQ(versions.spans(), 1u) << "nothing older is kept";
  const std::vector<MemoryRange> memory = {{0, 3 * kChunk}, {8 * kChunk, 100}};
  EXPECT_TRUE(versions.WrittenSince(1).everything);
  EXPECT_EQ(versions.WrittenSince(1).BytesOf(memory), 3 * kChunk + 100);
  EXPECT_FALSE(versions.WrittenSince(2).everything);
  EXPECT_EQ(versions.WrittenSince(2).BytesOf(memory), 100u);
  const ChunkVersions::Counts counts = versions.counts();
  EXPECT_EQ(counts.proven, 1u);
  EXPECT_EQ(counts.guessed, 1u);
  EXPECT_EQ(counts.unknown, 1u);
}

TEST(ChunkVersions, RangesMayReachToTheEndOfAddresses) {
  ChunkVersions versions(kChunk);
  Recorder record(&versions);
  record.Write(1, {{~0ull - 10, 100}});
  record.Write(2, {{~0ull - kChunk, ~0ull}});
  EXPECT_EQ(versions.LastWriter({~0ull - 5, 2}), 2u);
  EXPECT_EQ(versions.WrittenSince(1).ranges.size(), 1u);
}

// A table of chunks says the same.
class Table {
 public:
  static constexpr std::uint64_t kChunks = 400;
  void Write(std::uint64_t pc, const std::vector<MemoryRange>& ranges) {
    for (const MemoryRange& r : ranges) {
      for (std::uint64_t c = r.address / kChunk;
           c <= (r.address + r.bytes - 1) / kChunk; ++c) {
        chunks_[c] = pc;
      }
    }
  }
  void WriteAll(std::uint64_t pc) { chunks_.assign(kChunks, pc); }
  [[nodiscard]] std::uint64_t At(std::uint64_t chunk) const {
    return chunks_[chunk];
  }

 private:
  std::vector<std::uint64_t> chunks_ = std::vector<std::uint64_t>(kChunks);
};

std::vector<MemoryRange> Any(Random* random) {
  std::vector<MemoryRange> ranges(1 + random->Below(3));
  for (MemoryRange& r : ranges) {
    r.address = random->Below((Table::kChunks - 60) * kChunk);
    r.bytes = 1 + random->Below(random->Below(2) ? 50 * kChunk : 100);
  }
  return ranges;
}

TEST(ChunkVersions, AgreesWithATable) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Random random(seed);
    ChunkVersions versions(kChunk);
    Recorder record(&versions);
    Table table;
    for (std::uint64_t pc = 1; pc <= 300; ++pc) {
      if (random.Below(100) == 0) {
        table.WriteAll(pc);
        record.Write(pc, {}, AccessBasis::kUnknown);
        continue;
      }
      const std::vector<MemoryRange> ranges = Any(&random);
      table.Write(pc, ranges);
      record.Write(pc, ranges);
    }
    for (std::uint64_t c = 0; c < Table::kChunks; ++c) {
      ASSERT_EQ(versions.LastWriter({c * kChunk, kChunk}), table.At(c));
    }
    const std::uint64_t since = 150 + random.Below(150);
    const ChunkVersions::Written written = versions.WrittenSince(since);
    for (std::uint64_t c = 0; c < Table::kChunks; ++c) {
      const std::vector<MemoryRange> one = {{c * kChunk, kChunk}};
      ASSERT_EQ(written.BytesOf(one), table.At(c) > since ? kChunk : 0);
    }
    for (std::size_t i = 1; i < written.ranges.size(); ++i) {
      ASSERT_GT(written.ranges[i].address,
                written.ranges[i - 1].address + written.ranges[i - 1].bytes);
    }
  }
}

// With few spans nothing is lost: a version is at least what the table says.
TEST(ChunkVersions, BoundedMemoryErrsOnTheSafeSide) {
  constexpr std::size_t kMost = 16;
  Random random(3);
  ChunkVersions versions(kChunk, kMost);
  Recorder record(&versions);
  Table table;
  std::uint64_t exact = 0;
  for (std::uint64_t pc = 1; pc <= 2000; ++pc) {
    const std::vector<MemoryRange> ranges = Any(&random);
    table.Write(pc, ranges);
    record.Write(pc, ranges);
    ASSERT_LE(versions.spans(), kMost);
    if (pc % 20 != 0) continue;
    for (std::uint64_t c = 0; c < Table::kChunks; ++c) {
      const std::uint64_t version = versions.LastWriter({c * kChunk, kChunk});
      ASSERT_GE(version, table.At(c));
      exact += version == table.At(c) ? 1 : 0;
    }
  }
  EXPECT_GT(versions.chunk_bytes(), kChunk);
  EXPECT_GT(exact, 0u);
}

TEST(ChunkVersions, MayBeReadWhileItIsWritten) {
  ChunkVersions versions(kChunk);
  std::atomic<bool> done{false};
  std::thread reader([&] {
    std::uint64_t before = 0;
    while (!done.load()) {
      const std::uint64_t now = versions.LastWriter({0, 1 << 30});
      EXPECT_GE(now, before);
      before = now;
      EXPECT_LE(versions.WrittenSince(before / 2).ranges.size(), 2000u);
    }
  });
  Recorder record(&versions);
  Random random(1);
  for (std::uint64_t pc = 1; pc <= 5000; ++pc) {
    record.Write(pc, {{random.Below(1 << 22), 5000}});
  }
  done.store(true);
  reader.join();
}

TEST(ChunkVersions, FollowsASession) {
  SimSession session(1);
  SessionClient client(session.ring());
  ChunkVersions versions(2 << 20);
  WriteRecorder recorder(&versions);
  ASSERT_TRUE(session->Quiesce(Deadline::AfterMs(20000)).ok());
  session->SetWatch(&recorder);
  session->Resume();
  const SessionClient::Context context = client.MakeContext();
  const std::uint64_t block = client.Alloc(context, 64 << 20);
  ASSERT_EQ(client.Sync(context.stream), 0);
  const std::uint64_t before = session->calls();
  const std::vector<MemoryRange> memory = {{block, 64 << 20}};
  EXPECT_EQ(versions.WrittenSince(0).BytesOf(memory), 64u << 20) << "made";
  EXPECT_EQ(versions.WrittenSince(before).BytesOf(memory), 0u);
  client.Post(cuda::FillArgs{.stream = context.stream,
                             .dst = block + (10 << 20) + 5,
                             .count = 4 << 20,
                             .rows = 1,
                             .pitch = 0,
                             .value = 0,
                             .width = 1});
  ASSERT_EQ(client.Sync(context.stream), 0);
  EXPECT_EQ(versions.WrittenSince(before).BytesOf(memory), 6u << 20);
  EXPECT_EQ(versions.LastWriter({block + (11 << 20), 1}), before + 1);
  session.session().Destroy();
}

}  // namespace
}  // namespace pos::ckpt
