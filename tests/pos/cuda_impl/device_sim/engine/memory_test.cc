#include "pos/cuda_impl/device_sim/engine/memory.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <thread>

#include "pos/cuda_impl/device_sim/engine/heap.h"
#include "tests/pos/cuda_impl/device_sim/engine/engine_fixture.h"

namespace pos::sim {
namespace {

class MemoryTest : public EngineTest {
 protected:
  void SetUp() override {
    EngineTest::SetUp();
    memory_->RemoveAllocation(kArena);
  }
};

TEST_F(MemoryTest, CountsWhatIsMappedAndRefusesMore) {
  const std::uint64_t all = memory_->FreeBytes();
  EXPECT_EQ(all, kArenaBytes - 16 * kGranule);
  ASSERT_TRUE(memory_->Map(kArena + 16 * kGranule, all).ok());
  EXPECT_EQ(memory_->FreeBytes(), 0u);
  EXPECT_EQ(memory_->Map(kArena, kGranule).code(), Code::kExists);
  ASSERT_TRUE(memory_->Unmap(kArena, kGranule).ok());
  EXPECT_EQ(memory_->FreeBytes(), kGranule);
  EXPECT_EQ(memory_->Unmap(kArena, kGranule).code(), Code::kInvalid);
}

TEST_F(MemoryTest, RunsOutWithAnErrorAndRecovers) {
  const std::uint64_t at = kArena + 16 * kGranule;
  const std::uint64_t all = memory_->FreeBytes();
  ASSERT_TRUE(memory_->Unmap(kArena, kGranule).ok());
  ASSERT_TRUE(memory_->Map(at, all).ok());
  ASSERT_TRUE(memory_->Map(kArena, kGranule).ok());
  ASSERT_TRUE(memory_->Unmap(at, all).ok());
  auto small = SimMemory::Create(kArena, kArenaBytes, 4 * kGranule + 5);
  ASSERT_TRUE(small.ok());
  EXPECT_EQ((*small)->Map(at, 5 * kGranule).code(), Code::kOutOfMemory);
  EXPECT_TRUE((*small)->Map(at, 4 * kGranule).ok());
  EXPECT_EQ((*small)->Map(at + 4 * kGranule, kGranule).code(),
            Code::kOutOfMemory);
}

TEST_F(MemoryTest, MemoryIsZeroEachTimeItIsMapped) {
  auto* first = reinterpret_cast<unsigned char*>(kArena);
  EXPECT_EQ(first[12345], 0);
  first[12345] = 7;
  ASSERT_TRUE(memory_->Unmap(kArena, kGranule).ok());
  ASSERT_TRUE(memory_->Map(kArena, kGranule).ok());
  EXPECT_EQ(first[12345], 0);
}

TEST_F(MemoryTest, RefusesRangesOutsideTheArenaOrBetweenGranules) {
  EXPECT_EQ(memory_->Map(kArena - kGranule, kGranule).code(), Code::kInvalid);
  EXPECT_EQ(memory_->Map(kArena + kArenaBytes, kGranule).code(),
            Code::kInvalid);
  EXPECT_EQ(memory_->Map(kArena + 20 * kGranule, 4096).code(), Code::kInvalid);
  EXPECT_EQ(memory_->Map(kArena, ~0ull / kGranule * kGranule).code(),
            Code::kInvalid);
}

TEST_F(MemoryTest, FindsExactlyTheAllocationsRoundedTo512) {
  memory_->AddAllocation(kArena + 512, 100);
  memory_->AddAllocation(kArena + 1024, 512);
  memory_->AddAllocation(kArena + kGranule - 512, 3 * kGranule);
  EXPECT_EQ(memory_->Find(kArena + 511).limit, 0u);
  EXPECT_EQ(memory_->Find(kArena + 512).base, kArena + 512);
  EXPECT_EQ(memory_->Find(kArena + 700).limit, kArena + 1024);
  EXPECT_EQ(memory_->Find(kArena + 1024).base, kArena + 1024);
  EXPECT_EQ(memory_->Find(kArena + 1536).limit, 0u);
  for (const std::uint64_t at :
       {kGranule - 512, kGranule, 2 * kGranule + 5, 4 * kGranule - 513}) {
    EXPECT_EQ(memory_->Find(kArena + at).base, kArena + kGranule - 512) << at;
    EXPECT_EQ(memory_->Find(kArena + at).limit, kArena + 4 * kGranule - 512);
  }
  EXPECT_EQ(memory_->Find(kArena + 4 * kGranule - 512).limit, 0u);
  EXPECT_EQ(memory_->Find(0).limit, 0u);
  EXPECT_EQ(memory_->Find(~0ull).limit, 0u);
}

TEST_F(MemoryTest, NeighboursAreNotRoundedInto) {
  memory_->AddAllocation(kArena, 4);
  memory_->AddAllocation(kArena + 8, 4);
  EXPECT_EQ(memory_->Find(kArena + 7).limit, kArena + 8);
  EXPECT_EQ(memory_->Find(kArena + 8).base, kArena + 8);
}

TEST_F(MemoryTest, RemovalChangesTheGeneration) {
  memory_->AddAllocation(kArena, 4096);
  const std::uint64_t before = memory_->Generation();
  memory_->RemoveAllocation(kArena);
  EXPECT_NE(memory_->Generation(), before);
  EXPECT_EQ(memory_->Find(kArena).limit, 0u);
}

TEST_F(MemoryTest, HostRangesAreFoundExactly) {
  const std::uint64_t host = 0x10000000;
  ASSERT_TRUE(memory_->MapHost(host, 4096).ok());
  EXPECT_EQ(memory_->MapHost(host + 4095, 2).code(), Code::kExists);
  EXPECT_EQ(memory_->Find(host).base, host);
  EXPECT_EQ(memory_->Find(host + 4095).limit, host + 4096);
  EXPECT_EQ(memory_->Find(host + 4096).limit, 0u);
  EXPECT_EQ(memory_->MapHost(kArena + 64, 64).code(), Code::kInvalid);
  EXPECT_EQ(memory_->UnmapHost(host, 4097).code(), Code::kNoSuch);
  ASSERT_TRUE(memory_->UnmapHost(host, 4096).ok());
  EXPECT_EQ(memory_->Find(host).limit, 0u);
}

TEST_F(MemoryTest, ReadAndWriteNeedMappedMemory) {
  std::vector<std::byte> bytes(3 * kGranule, std::byte{9});
  EXPECT_TRUE(memory_->Write(kArena + 5, bytes).ok());
  std::vector<std::byte> back(3 * kGranule);
  EXPECT_TRUE(memory_->Read(kArena + 5, back).ok());
  EXPECT_EQ(back, bytes);
  EXPECT_EQ(memory_->Read(kArena + 15 * kGranule, back).code(), Code::kInvalid);
  EXPECT_EQ(memory_->Write(kArena - 1, back).code(), Code::kInvalid);
}

TEST_F(MemoryTest, LookupsGoOnWhileAllocationsComeAndGo) {
  memory_->AddAllocation(kArena, 64);
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&, i] {
      auto* slot = memory_->NewReader();
      std::mt19937 random(static_cast<unsigned>(i));
      while (!stop) {
        slot->Enter(*memory_);
        for (int k = 0; k < 100; ++k) {
          const std::uint64_t at = kArena + random() % (4 * kGranule);
          const auto range = memory_->Find(at);
          if (range.limit != 0) {
            EXPECT_LE(range.base, at);
            EXPECT_GT(range.limit, at);
          }
          EXPECT_EQ(memory_->Find(kArena).base, kArena);
        }
        slot->Leave();
      }
    });
  }
  std::mt19937 random(9);
  std::set<std::uint64_t> live;
  for (int i = 0; i < 3000; ++i) {
    const std::uint64_t at = kArena + 4096 + random() % 2000 * 4096;
    if (live.erase(at) != 0) {
      memory_->RemoveAllocation(at);
    } else {
      memory_->AddAllocation(at, 1 + random() % 4096);
      live.insert(at);
    }
  }
  stop = true;
  for (auto& reader : readers) reader.join();
}

class HeapTest : public EngineTest {
 protected:
  static constexpr std::uint64_t kBytes = 1 << 20;
  void SetUp() override {
    EngineTest::SetUp();
    heap_.SetRange(kArena, kBytes);
  }
  DeviceHeap heap_;
};

TEST_F(HeapTest, HandsOutDisjointAlignedBlocksAndTakesThemBack) {
  std::mt19937 random(1);
  std::map<std::uint64_t, std::uint64_t> live;
  for (int i = 0; i < 20000; ++i) {
    if (!live.empty() && random() % 2 == 0) {
      auto it = live.begin();
      std::advance(it, static_cast<long>(random() % live.size()));
      EXPECT_TRUE(heap_.Free(it->first));
      EXPECT_FALSE(heap_.Free(it->first));
      live.erase(it);
      continue;
    }
    const std::uint64_t bytes = 1 + random() % 3000;
    const std::uint64_t got = heap_.Malloc(bytes);
    if (got == 0) continue;
    EXPECT_EQ(got % 16, 0u);
    EXPECT_GE(got, kArena);
    EXPECT_LE(got + bytes, kArena + kBytes);
    const auto next = live.lower_bound(got);
    if (next != live.end()) {
      EXPECT_LE(got + bytes, next->first);
    }
    if (next != live.begin()) {
      EXPECT_LE(std::prev(next)->first + std::prev(next)->second, got);
    }
    memset(reinterpret_cast<void*>(got), 0xaa, bytes);
    live[got] = bytes;
  }
  for (const auto& [at, bytes] : live) EXPECT_TRUE(heap_.Free(at));
  // All of it is one piece again.
  EXPECT_NE(heap_.Malloc(kBytes - 64), 0u);
}

TEST_F(HeapTest, ReturnsZeroWhenFullAndForNothing) {
  EXPECT_EQ(heap_.Malloc(0), 0u);
  EXPECT_EQ(heap_.Malloc(kBytes), 0u);
  EXPECT_EQ(heap_.Malloc(~0ull), 0u);
  EXPECT_NE(heap_.Malloc(1000), 0u);
  EXPECT_FALSE(heap_.Free(kArena + 8));
  EXPECT_FALSE(heap_.Free(12));
  EXPECT_TRUE(heap_.Free(0));
}

TEST_F(HeapTest, SurvivesDamageByKernels) {
  std::mt19937 random(2);
  auto* bytes = reinterpret_cast<unsigned char*>(kArena);
  for (int round = 0; round < 2000; ++round) {
    const std::uint64_t got = heap_.Malloc(1 + random() % 500);
    if (random() % 3 == 0 && got != 0) heap_.Free(got);
    bytes[random() % 4096] = static_cast<unsigned char>(random());
  }
}

TEST_F(HeapTest, StateIsInTheMemory) {
  const std::uint64_t got = heap_.Malloc(100);
  heap_.SetRange(0, 0);
  EXPECT_EQ(heap_.Malloc(16), 0u);
  heap_.SetRange(kArena, kBytes);
  EXPECT_NE(heap_.Malloc(100), got);
  EXPECT_TRUE(heap_.Free(got));
}

}  // namespace
}  // namespace pos::sim
