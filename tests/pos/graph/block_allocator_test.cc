#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "pos/graph/address_space.h"
#include "tests/support/random.h"

namespace pos {
namespace {

constexpr std::uint64_t kBase = 0x7e8000000000;
constexpr std::uint64_t kSlab = 2u << 20;

// What is backed, as the caller keeps it from what the allocator says.
class Backed {
 public:
  void Add(const BlockAllocator::Block& block) {
    if (block.new_backing) {
      ASSERT_EQ(ranges_.count(block.backing.address), 0u);
      ranges_[block.backing.address] = block.backing.bytes;
    }
    const auto it = ranges_.find(block.backing.address);
    ASSERT_NE(it, ranges_.end()) << "a block in memory that is not backed";
    ASSERT_EQ(it->second, block.backing.bytes);
    ASSERT_GE(block.address, block.backing.address);
    ASSERT_LE(block.address + block.bytes,
              block.backing.address + block.backing.bytes);
  }
  void Remove(const BlockAllocator::Backing& backing) {
    const auto it = ranges_.find(backing.address);
    ASSERT_NE(it, ranges_.end());
    ASSERT_EQ(it->second, backing.bytes);
    ranges_.erase(it);
  }
  [[nodiscard]] std::uint64_t bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [address, bytes] : ranges_) sum += bytes;
    return sum;
  }
  [[nodiscard]] bool Contains(std::uint64_t address) const {
    return ranges_.count(address) != 0;
  }

 private:
  std::map<std::uint64_t, std::uint64_t> ranges_;
};

std::unique_ptr<BlockAllocator> Reloaded(const BlockAllocator& blocks,
                                         std::uint64_t bytes) {
  ByteWriter out;
  blocks.Save(&out);
  auto loaded = std::make_unique<BlockAllocator>(kBase, bytes, kSlab);
  ByteReader in(out.bytes());
  EXPECT_TRUE(loaded->Load(&in).ok());
  EXPECT_EQ(in.left(), 0u);
  ByteWriter again;
  loaded->Save(&again);
  EXPECT_TRUE(std::equal(out.bytes().begin(), out.bytes().end(),
                         again.bytes().begin(), again.bytes().end()));
  return loaded;
}

class BlockAllocatorModel : public ::testing::TestWithParam<std::uint64_t> {};

TEST_P(BlockAllocatorModel, BlocksNeverOverlapAndBackingIsExact) {
  constexpr std::uint64_t kBytes = 64 * kSlab;
  Random random(GetParam());
  auto blocks = std::make_unique<BlockAllocator>(kBase, kBytes, kSlab);
  std::map<std::uint64_t, std::uint64_t> living;  // address → bytes
  Backed backed;
  for (int step = 0; step < 4000; ++step) {
    const std::uint32_t what = random.Below(16);
    if (what < 8) {
      // Mostly small, around every limit that matters, sometimes large.
      const std::uint64_t limits[] = {
          1,      511,      512,   513,       4096,
          300000, 1u << 20, kSlab, 3 * kSlab, (1u << 20) - 1,
          200,    70000};
      const std::uint64_t bytes = limits[random.Below(12)] + random.Below(300);
      const std::uint64_t promised = blocks->NewBackingBytes(bytes);
      const auto block = blocks->Allocate(bytes);
      if (!block) {
        ASSERT_NE(promised, 0u) << "room was there for nothing new";
        continue;
      }
      ASSERT_EQ(block->new_backing ? block->backing.bytes : 0, promised);
      ASSERT_GE(block->bytes, bytes);
      ASSERT_EQ(block->address % BlockAllocator::kBlockAlign, 0u);
      ASSERT_GE(block->address, kBase);
      ASSERT_LE(block->address + block->bytes, kBase + kBytes);
      const auto next = living.lower_bound(block->address);
      if (next != living.end()) {
        ASSERT_LE(block->address + block->bytes, next->first);
      }
      if (next != living.begin()) {
        const auto before = std::prev(next);
        ASSERT_LE(before->first + before->second, block->address);
      }
      ASSERT_NO_FATAL_FAILURE(backed.Add(*block));
      const auto found = blocks->Find(block->address);
      ASSERT_TRUE(found.has_value());
      ASSERT_EQ(found->bytes, block->bytes);
      ASSERT_EQ(found->backing.address, block->backing.address);
      living[block->address] = block->bytes;
    } else if (what < 15 && !living.empty()) {
      auto it = living.begin();
      std::advance(it, random.Below(static_cast<std::uint32_t>(living.size())));
      bool ok = false;
      EXPECT_FALSE(blocks->Free(it->first + 256, &ok).has_value());
      ASSERT_FALSE(ok) << "an address at which no block starts";
      const auto backing = blocks->Free(it->first, &ok);
      ASSERT_TRUE(ok);
      if (backing) {
        ASSERT_NO_FATAL_FAILURE(backed.Remove(*backing));
      }
      ASSERT_FALSE(blocks->Find(it->first).has_value());
      EXPECT_FALSE(blocks->Free(it->first, &ok).has_value());
      ASSERT_FALSE(ok) << "a double free is told";
      living.erase(it);
    } else if (what == 15 && step % 50 == 0) {
      blocks = Reloaded(*blocks, kBytes);
    }
    ASSERT_EQ(blocks->backed_bytes(), backed.bytes()) << step;
  }
  for (const auto& [address, bytes] : living) {
    bool ok = false;
    if (const auto backing = blocks->Free(address, &ok)) {
      ASSERT_NO_FATAL_FAILURE(backed.Remove(*backing));
    }
    ASSERT_TRUE(ok);
  }
  EXPECT_EQ(blocks->backed_bytes(), 0u);
  EXPECT_EQ(backed.bytes(), 0u);
  EXPECT_EQ(blocks->space().LargestFree(), kBytes);
}

INSTANTIATE_TEST_SUITE_P(Seeds, BlockAllocatorModel,
                         ::testing::Range<std::uint64_t>(1, 9));

// The same calls give the same addresses after a restore as without one.
TEST(BlockAllocator, GoesOnAfterALoadAsIfNothingHadHappened) {
  constexpr std::uint64_t kBytes = 32 * kSlab;
  Random random(99);
  BlockAllocator first(kBase, kBytes, kSlab);
  std::vector<std::uint64_t> living;
  const auto churn = [&](BlockAllocator* blocks, Random* r,
                         std::vector<std::uint64_t>* own) {
    std::vector<std::uint64_t> addresses;
    for (int i = 0; i < 500; ++i) {
      if (r->Below(3) == 0 && !own->empty()) {
        const std::uint32_t k =
            r->Below(static_cast<std::uint32_t>(own->size()));
        bool ok = false;
        blocks->Free((*own)[k], &ok);
        (*own)[k] = own->back();
        own->pop_back();
      } else if (const auto block = blocks->Allocate(1 + r->Below(1 << 19))) {
        own->push_back(block->address);
        addresses.push_back(block->address);
      }
    }
    return addresses;
  };
  churn(&first, &random, &living);
  const auto second = Reloaded(first, kBytes);
  Random random_a(5);
  Random random_b(5);
  std::vector<std::uint64_t> living_b = living;
  EXPECT_EQ(churn(&first, &random_a, &living),
            churn(second.get(), &random_b, &living_b));
}

// Full slabs are not looked at: the cost of an allocation does not grow with
// their number. Counted in operations that would be seconds if it did.
TEST(BlockAllocator, ManySmallBlocksStayCheap) {
  constexpr std::uint64_t kBytes = 40000 * kSlab;
  BlockAllocator blocks(kBase, kBytes, kSlab);
  constexpr int kBlocks = 120000;
  std::vector<std::uint64_t> living;
  for (int i = 0; i < kBlocks; ++i) {
    const auto block = blocks.Allocate(700 << 10);  // two a slab
    if (!block) break;
    living.push_back(block->address);
  }
  EXPECT_EQ(living.size(), 80000u);
  for (const std::uint64_t address : living) {
    bool ok = false;
    blocks.Free(address, &ok);
    ASSERT_TRUE(ok);
  }
  EXPECT_EQ(blocks.backed_bytes(), 0u);
}

TEST(BlockAllocator, RefusesHugeAndZeroSizes) {
  BlockAllocator blocks(kBase, 8 * kSlab, kSlab);
  EXPECT_FALSE(blocks.Allocate(0).has_value());
  EXPECT_FALSE(blocks.Allocate(~0ull).has_value());
  EXPECT_FALSE(blocks.Allocate(8 * kSlab + 1).has_value());
  EXPECT_TRUE(blocks.Allocate(8 * kSlab).has_value());
  EXPECT_FALSE(blocks.Allocate(1).has_value());
}

TEST(BlockAllocator, LoadRefusesEveryCutImageAndSlabsThatAreNone) {
  BlockAllocator blocks(kBase, 8 * kSlab, kSlab);
  blocks.Allocate(100);
  blocks.Allocate(3 * kSlab);
  ByteWriter out;
  blocks.Save(&out);
  for (std::size_t keep = 0; keep < out.bytes().size(); ++keep) {
    BlockAllocator other(kBase, 8 * kSlab, kSlab);
    ByteReader in(out.bytes().first(keep));
    EXPECT_FALSE(other.Load(&in).ok()) << keep;
  }
  // Every word once changed: refused, or a state that works.
  for (std::size_t word = 0; word + 8 <= out.bytes().size(); word += 8) {
    for (const std::uint64_t value :
         std::initializer_list<std::uint64_t>{0, 1, kSlab, kBase, ~0ull}) {
      std::vector<std::byte> bytes(out.bytes().begin(), out.bytes().end());
      std::memcpy(bytes.data() + word, &value, 8);
      BlockAllocator other(kBase, 8 * kSlab, kSlab);
      ByteReader in(bytes);
      if (!other.Load(&in).ok()) continue;
      if (const auto block = other.Allocate(100)) {
        bool ok = false;
        other.Free(block->address, &ok);
        EXPECT_TRUE(ok);
      }
    }
  }
}

}  // namespace
}  // namespace pos
