#include "pos/graph/allocation_map.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/random.h"

namespace pos {
namespace {

Allocation At(std::uint64_t address, std::uint64_t bytes) {
  Allocation a;
  a.address = address;
  a.bytes = bytes;
  a.block_bytes = (bytes + 511) / 512 * 512;
  a.context = 5;
  return a;
}

TEST(AllocationMap, FindsExactlyTheRangesInside) {
  AllocationMap map;
  map.Add(At(0x1000, 100));
  map.Add(At(0x2000, 1));
  for (std::uint64_t address = 0xff0; address < 0x2010; ++address) {
    for (const std::uint64_t bytes :
         std::initializer_list<std::uint64_t>{0, 1, 2, 99, 100, 101, ~0ull}) {
      const bool in_first =
          address >= 0x1000 && address < 0x1064 && bytes <= 0x1064 - address;
      const bool in_second = address == 0x2000 && bytes <= 1;
      ASSERT_EQ(map.Find(address, bytes) != nullptr, in_first || in_second)
          << std::hex << address << " " << bytes;
    }
  }
  EXPECT_EQ(map.Find(~0ull, 1), nullptr);
  EXPECT_EQ(map.Find(0, 0), nullptr);
}

TEST(AllocationMap, RangeBeingReleasedIsNotUsableButThere) {
  AllocationMap map;
  map.Add(At(0x1000, 100));
  map.At(0x1000)->releasing = true;
  EXPECT_EQ(map.Find(0x1000, 1), nullptr);
  EXPECT_NE(map.At(0x1000), nullptr);
  EXPECT_EQ(map.At(0x1001), nullptr);
  map.Remove(0x1000);
  EXPECT_EQ(map.At(0x1000), nullptr);
}

TEST(AllocationMap, SavesAndLoadsEveryField) {
  AllocationMap map;
  Random random(3);
  std::uint64_t address = 0x1000;
  for (int i = 0; i < 50; ++i) {
    Allocation a = At(address, 1 + random.Below(2000));
    a.kind = static_cast<MemoryKind>(1 + i % 3);
    a.device = i % 4;
    a.context = 1000u + static_cast<unsigned>(i);
    a.releasing = i % 5 == 0;
    map.Add(a);
    address += a.block_bytes + 512 * random.Below(3);
  }
  ByteWriter out;
  map.Save(&out);
  AllocationMap loaded;
  ByteReader in(out.bytes());
  ASSERT_TRUE(loaded.Load(&in).ok());
  ASSERT_EQ(loaded.all().size(), map.all().size());
  for (const auto& [at, a] : map.all()) {
    const Allocation* const b = loaded.At(at);
    ASSERT_NE(b, nullptr);
    EXPECT_EQ(b->bytes, a.bytes);
    EXPECT_EQ(b->block_bytes, a.block_bytes);
    EXPECT_EQ(b->kind, a.kind);
    EXPECT_EQ(b->device, a.device);
    EXPECT_EQ(b->context, a.context);
    EXPECT_EQ(b->releasing, a.releasing);
  }
  for (std::size_t keep = 0; keep < out.bytes().size(); ++keep) {
    AllocationMap cut;
    ByteReader short_in(out.bytes().first(keep));
    ASSERT_FALSE(cut.Load(&short_in).ok()) << keep;
  }
}

Code LoadOf(std::initializer_list<Allocation> allocations) {
  ByteWriter out;
  out.Put(static_cast<std::uint64_t>(allocations.size()));
  for (const Allocation& a : allocations) {
    out.Put(a.address);
    out.Put(a.bytes);
    out.Put(a.block_bytes);
    out.Put(a.kind);
    out.Put(a.device);
    out.Put(a.context);
    out.Put(static_cast<std::uint8_t>(a.releasing));
  }
  AllocationMap map;
  ByteReader in(out.bytes());
  return map.Load(&in).code();
}

TEST(AllocationMap, LoadRefusesWhatCannotBe) {
  EXPECT_EQ(LoadOf({At(0x1000, 100)}), Code::kOk);
  EXPECT_EQ(LoadOf({At(0x1000, 100), At(0x1200, 1)}), Code::kOk);
  EXPECT_EQ(LoadOf({At(0x1000, 100), At(0x1100, 1)}), Code::kCorrupt);
  EXPECT_EQ(LoadOf({At(0x1000, 100), At(0x1000, 100)}), Code::kCorrupt);
  EXPECT_EQ(LoadOf({At(0x2000, 100), At(0x1000, 100)}), Code::kCorrupt);
  EXPECT_EQ(LoadOf({At(0x1000, 0)}), Code::kCorrupt);
  Allocation larger = At(0x1000, 100);
  larger.block_bytes = 99;
  EXPECT_EQ(LoadOf({larger}), Code::kCorrupt);
  Allocation wraps = At(~0ull - 100, 100);
  wraps.block_bytes = 512;
  EXPECT_EQ(LoadOf({wraps}), Code::kCorrupt);
  for (const int kind : {0, 6, 255}) {
    Allocation unknown = At(0x1000, 100);
    unknown.kind = static_cast<MemoryKind>(kind);
    EXPECT_EQ(LoadOf({unknown}), Code::kCorrupt) << kind;
  }
}

}  // namespace
}  // namespace pos
