#include "pos/graph/address_space.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "tests/support/random.h"

namespace pos {
namespace {

constexpr std::uint64_t kBase = 0x7e8000000000;
constexpr std::uint64_t kGranule = 4096;

// One bit a granule: slow and plainly right.
class NaiveSpace {
 public:
  explicit NaiveSpace(std::size_t granules) : used_(granules) {}

  // Best fit: the shortest free run that holds it, the lowest of equals.
  std::optional<std::uint64_t> Allocate(std::uint64_t bytes,
                                        std::uint64_t alignment) {
    const std::size_t count = (bytes + kGranule - 1) / kGranule;
    std::optional<std::size_t> best;
    std::size_t best_length = 0;
    for (std::size_t i = 0; i < used_.size();) {
      if (used_[i]) {
        ++i;
        continue;
      }
      std::size_t end = i;
      while (end < used_.size() && !used_[end]) ++end;
      std::size_t at = i;
      while ((kBase + at * kGranule) % alignment != 0) ++at;
      if (at + count <= end && (!best || end - i < best_length)) {
        best = at;
        best_length = end - i;
      }
      i = end;
    }
    if (!best) return std::nullopt;
    Take(*best, count);
    return kBase + *best * kGranule;
  }
  bool AllocateAt(std::uint64_t address, std::uint64_t bytes) {
    const std::size_t at = (address - kBase) / kGranule;
    const std::size_t count = bytes / kGranule;
    if (at + count > used_.size()) return false;
    for (std::size_t i = at; i < at + count; ++i) {
      if (used_[i]) return false;
    }
    Take(at, count);
    return true;
  }
  std::uint64_t Free(std::uint64_t address) {
    const auto it = ranges_.find((address - kBase) / kGranule);
    if (it == ranges_.end()) return 0;
    const std::size_t count = it->second;
    for (std::size_t i = 0; i < count; ++i) used_[it->first + i] = false;
    ranges_.erase(it);
    return count * kGranule;
  }
  [[nodiscard]] std::uint64_t UsedBytes() const {
    return static_cast<std::uint64_t>(
               std::count(used_.begin(), used_.end(), true)) *
           kGranule;
  }
  [[nodiscard]] const std::map<std::size_t, std::size_t>& ranges() const {
    return ranges_;
  }

 private:
  void Take(std::size_t at, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) used_[at + i] = true;
    ranges_[at] = count;
  }
  std::vector<bool> used_;
  std::map<std::size_t, std::size_t> ranges_;
};

void ExpectSame(const AddressSpace& space, const NaiveSpace& naive) {
  ASSERT_EQ(space.used_bytes(), naive.UsedBytes());
  ASSERT_EQ(space.used().size(), naive.ranges().size());
  auto it = naive.ranges().begin();
  for (const auto& [address, length] : space.used()) {
    ASSERT_EQ(address, kBase + it->first * kGranule);
    ASSERT_EQ(length, it->second * kGranule);
    ++it;
  }
}

AddressSpace Reloaded(const AddressSpace& space) {
  ByteWriter out;
  space.Save(&out);
  AddressSpace loaded(space.base(), space.bytes(), space.granularity());
  ByteReader in(out.bytes());
  EXPECT_TRUE(loaded.Load(&in).ok());
  EXPECT_EQ(in.left(), 0u);
  return loaded;
}

TEST(AddressSpace, AgreesWithANaiveModelAcrossSavesAndLoads) {
  constexpr std::size_t kGranules = 200;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    auto space =
        std::make_unique<AddressSpace>(kBase, kGranules * kGranule, kGranule);
    NaiveSpace naive(kGranules);
    std::vector<std::uint64_t> living;
    for (int step = 0; step < 1500; ++step) {
      switch (random.Below(8)) {
        case 0:
        case 1:
        case 2: {
          const std::uint64_t bytes = 1 + random.Below(12 * kGranule);
          const std::uint64_t alignment =
              random.Below(3) == 0 ? kGranule << random.Below(5) : 0;
          const auto got = space->Allocate(bytes, alignment);
          ASSERT_EQ(got, naive.Allocate(bytes, std::max(alignment, kGranule)))
              << step;
          if (got) living.push_back(*got);
          break;
        }
        case 3: {
          const std::uint64_t at = kBase + random.Below(kGranules) * kGranule;
          const std::uint64_t bytes = (1 + random.Below(4)) * kGranule;
          const bool got = space->AllocateAt(at, bytes);
          ASSERT_EQ(got, naive.AllocateAt(at, bytes)) << step;
          if (got) living.push_back(at);
          break;
        }
        case 7:
          if (step % 100 == 0) {
            space = std::make_unique<AddressSpace>(Reloaded(*space));
          }
          break;
        default: {
          if (living.empty()) break;
          const std::uint32_t i =
              random.Below(static_cast<std::uint32_t>(living.size()));
          ASSERT_EQ(space->Free(living[i]), naive.Free(living[i]));
          ASSERT_EQ(space->Free(living[i]), 0u) << "a double free is told";
          living[i] = living.back();
          living.pop_back();
          break;
        }
      }
    }
    ExpectSame(*space, naive);
    for (const std::uint64_t address : living) space->Free(address);
    EXPECT_EQ(space->used_bytes(), 0u);
    EXPECT_EQ(space->LargestFree(), kGranules * kGranule) << "all merged";
  }
}

TEST(AddressSpace, RefusesSizesThatWrapAround) {
  AddressSpace space(kBase, 64 * kGranule, kGranule);
  EXPECT_EQ(space.Allocate(0), std::nullopt);
  EXPECT_EQ(space.Allocate(~0ull), std::nullopt);
  EXPECT_EQ(space.Allocate(~0ull - kGranule), std::nullopt);
  EXPECT_EQ(space.Allocate(64 * kGranule + 1), std::nullopt);
  EXPECT_EQ(space.Allocate(kGranule, 1ull << 63), std::nullopt);
  EXPECT_FALSE(space.AllocateAt(kBase, 0));
  EXPECT_FALSE(space.AllocateAt(kBase, ~0ull));
  EXPECT_FALSE(space.AllocateAt(kBase, ~0ull - kGranule + 1));
  EXPECT_FALSE(space.AllocateAt(kBase + 1, kGranule));
  EXPECT_FALSE(space.AllocateAt(kBase - kGranule, kGranule));
  EXPECT_FALSE(space.AllocateAt(~0ull - kGranule + 1, kGranule));
  EXPECT_FALSE(space.AllocateAt(kBase + 63 * kGranule, 2 * kGranule));
  EXPECT_EQ(space.Free(kBase), 0u);
  EXPECT_TRUE(space.AllocateAt(kBase, 64 * kGranule));
  EXPECT_EQ(space.LargestFree(), 0u);
}

TEST(AddressSpace, LoadRefusesAnotherSpaceAndEveryCutImage) {
  AddressSpace space(kBase, 64 * kGranule, kGranule);
  ASSERT_TRUE(space.AllocateAt(kBase + 4 * kGranule, 2 * kGranule));
  ASSERT_TRUE(space.AllocateAt(kBase + 9 * kGranule, kGranule));
  ByteWriter out;
  space.Save(&out);
  AddressSpace smaller(kBase, 32 * kGranule, kGranule);
  ByteReader whole(out.bytes());
  EXPECT_EQ(smaller.Load(&whole).code(), Code::kIncompatible);
  for (std::size_t keep = 0; keep < out.bytes().size(); ++keep) {
    AddressSpace other(kBase, 64 * kGranule, kGranule);
    ByteReader in(out.bytes().first(keep));
    EXPECT_FALSE(other.Load(&in).ok()) << keep;
  }
}

TEST(AddressSpace, LoadRefusesRangesThatOverlapOrLieOutside) {
  const auto load =
      [](std::initializer_list<std::pair<std::uint64_t, std::uint64_t>> ranges,
         std::uint64_t count) {
        ByteWriter out;
        out.Put(kBase);
        out.Put<std::uint64_t>(64 * kGranule);
        out.Put(kGranule);
        out.Put(count);
        for (const auto& [address, bytes] : ranges) {
          out.Put(address);
          out.Put(bytes);
        }
        AddressSpace space(kBase, 64 * kGranule, kGranule);
        ByteReader in(out.bytes());
        return space.Load(&in).code();
      };
  EXPECT_EQ(load({{kBase, kGranule}}, 1), Code::kOk);
  EXPECT_EQ(load({{kBase, kGranule}, {kBase, kGranule}}, 2), Code::kCorrupt);
  EXPECT_EQ(load({{kBase, 2 * kGranule}, {kBase + kGranule, kGranule}}, 2),
            Code::kCorrupt);
  EXPECT_EQ(load({{kBase + 64 * kGranule, kGranule}}, 1), Code::kCorrupt);
  EXPECT_EQ(load({{kBase, 0}}, 1), Code::kCorrupt);
  EXPECT_EQ(load({{kBase, ~0ull}}, 1), Code::kCorrupt);
  EXPECT_EQ(load({{kBase, kGranule}}, ~0ull), Code::kCorrupt);
}

}  // namespace
}  // namespace pos
