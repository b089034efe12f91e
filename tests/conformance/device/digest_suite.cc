// Device conformance: digests of device memory are those of ckpt/FORMAT.md.
#include <algorithm>
#include <random>
#include <thread>

#include "ckpt/format/digest.h"
#include "tests/conformance/device/fixture.h"

namespace pos::conformance {
namespace {

constexpr std::uint64_t kSeed = 0x0123456789abcdef;

std::vector<std::byte> Random(std::size_t bytes, unsigned seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> data(bytes);
  for (std::size_t i = 0; i < bytes; i += 8) {
    const std::uint64_t word = random();
    std::memcpy(data.data() + i, &word, std::min<std::size_t>(8, bytes - i));
  }
  return data;
}

class DigestTest : public DeviceTest {
 protected:
  // Digests of parts of `data`, which lies at `base`.
  void Expect(DeviceAddress base, const std::vector<std::byte>& data,
              const std::vector<std::pair<std::size_t, std::size_t>>& parts,
              std::uint64_t seed = kSeed) {
    std::vector<MemoryRange> ranges;
    for (const auto& [offset, bytes] : parts) {
      ranges.push_back({base + offset, bytes});
    }
    std::vector<ckpt::Digest> digests(ranges.size());
    const Status status = device_->Digest(ranges, seed, digests);
    ASSERT_TRUE(status.ok()) << status.ToString();
    const ckpt::DigestKey key(seed);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      EXPECT_EQ(digests[i].Hex(),
                ckpt::DigestOf(key, std::span(data).subspan(parts[i].first,
                                                            parts[i].second))
                    .Hex())
          << parts[i].second << " bytes at " << parts[i].first;
    }
  }
};

TEST_F(DigestTest, EqualThoseOfTheHost) {
  constexpr std::size_t kBytes = 300 << 10;
  const DeviceAddress base = Allocate(kBytes);
  const std::vector<std::byte> data = Random(kBytes, 1);
  Write(base, data);
  Expect(base, data, {});
  // Whole blocks, one, several, more than one kernel block's share.
  Expect(base, data, {{0, 4096}, {4096, 8192}, {0, 256 << 10}, {0, kBytes}});
  // Nothing, little, and tails of every kind.
  Expect(base, data, {{0, 0}, {0, 1}, {0, 7}, {16, 8}, {32, 24}, {0, 4095}});
  Expect(base, data, {{0, 4097}, {4096, 64}, {8192, 4096 + 4088}, {0, 9999}});
  // Addresses that are no multiples of anything.
  Expect(base, data, {{1, 4096}, {8, 4096}, {3, 100}, {4, 8200}, {4093, 6}});
  // The same range twice, and others over it.
  Expect(base, data, {{0, 8192}, {0, 8192}, {4096, 8192}});
}

TEST_F(DigestTest, DependOnTheSeedAndOnEveryByte) {
  const DeviceAddress base = Allocate(8192);
  std::vector<std::byte> data = Random(8192, 2);
  Write(base, data);
  for (const std::uint64_t seed :
       {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{1} << 63, kSeed}) {
    Expect(base, data, {{0, 8192}, {0, 5000}}, seed);
  }
  std::mt19937 random(3);
  for (int i = 0; i < 10; ++i) {
    data[random() % 8192] ^= std::byte{1};
    Write(base, data);
    Expect(base, data, {{0, 8192}});
  }
}

TEST_F(DigestTest, ManyRangesAtOnce) {
  constexpr std::size_t kBytes = 200 << 10;
  const DeviceAddress base = Allocate(kBytes);
  const std::vector<std::byte> data = Random(kBytes, 4);
  Write(base, data);
  std::mt19937 random(5);
  std::vector<std::pair<std::size_t, std::size_t>> parts;
  for (int i = 0; i < 60; ++i) {
    const std::size_t offset = random() % (kBytes - 9000);
    parts.emplace_back(offset, random() % 9000);
  }
  Expect(base, data, parts);
}

TEST_F(DigestTest, SpanAllocationsThatLieNextToEachOther) {
  constexpr std::uint64_t kGranule = Device::kMapGranularity;
  const DeviceAddress base = harness_->ReserveAddresses(2 * kGranule);
  ASSERT_TRUE(device_->Map(base, kGranule).ok());
  ASSERT_TRUE(device_->Map(base + kGranule, kGranule).ok());
  std::vector<std::byte> data(2 * kGranule);
  const std::vector<std::byte> middle = Random(16384, 6);
  std::copy(middle.begin(), middle.end(), data.begin() + kGranule - 8192);
  // A copy over the seam would be one of two allocations.
  const auto half = middle.begin() + 8192;
  Write(base + kGranule - 8192, std::vector(middle.begin(), half));
  Write(base + kGranule, std::vector(half, middle.end()));
  Expect(base, data, {{kGranule - 8192, 16384}, {kGranule - 100, 200}});
}

TEST_F(DigestTest, RefuseWhatIsNotMapped) {
  constexpr std::uint64_t kGranule = Device::kMapGranularity;
  const DeviceAddress base = harness_->ReserveAddresses(3 * kGranule);
  ASSERT_TRUE(device_->Map(base, kGranule).ok());
  std::vector<ckpt::Digest> digests(2);
  const std::vector<std::vector<MemoryRange>> bad = {
      {{base + kGranule, 1}},
      {{base + kGranule - 1, 2}},
      {{base, 4096}, {base + 2 * kGranule, 4096}},
      {{base, ~std::uint64_t{0} - 5}},
      {{16, 16}},
  };
  for (const std::vector<MemoryRange>& ranges : bad) {
    EXPECT_EQ(device_->Digest(ranges, kSeed, digests).code(), Code::kInvalid);
  }
  // And nothing has suffered.
  const DeviceAddress data = Allocate(4);
  Affine(Stream(), data, 1, 1, 9);
  ASSERT_EQ(AwaitIdle(), 0);
  EXPECT_EQ(ReadWord(data), 9u);
  Expect(base, std::vector<std::byte>(4096), {{0, 4096}});
}

TEST_F(DigestTest, OfVariables) {
  DeviceModule* const module = Load(kBasic);
  ASSERT_NE(module, nullptr);
  for (const GlobalInfo& global : module->Globals()) {
    const auto data = Read<std::byte>(global.address, global.bytes);
    Expect(global.address, data, {{0, global.bytes}});
  }
}

// A kernel that never ends by itself holds up no digest.
TEST_F(DigestTest, AreMadeWhileOtherWorkRuns) {
  const DeviceAddress base = Allocate(16384);
  const std::vector<std::byte> data = Random(16384, 7);
  Write(base, data);
  DeviceStream* const stream = Stream(kStreamDefault);
  const Gate gate = Hold(stream);
  const std::uint64_t token = NewToken();
  stream->Notify(token);
  std::thread other([&] { Expect(base, data, {{0, 16384}, {5, 5000}}); });
  other.join();
  EXPECT_EQ(sink_.Times(token), 0);
  Release(gate);
  EXPECT_EQ(sink_.Await(token), 0);
}

// While the worker maps, unmaps, works.
TEST_F(DigestTest, AreMadeWhileTheWorkerGoesOn) {
  constexpr std::uint64_t kGranule = Device::kMapGranularity;
  const DeviceAddress base = Allocate(16384);
  const DeviceAddress other = Allocate(4096);
  const std::vector<std::byte> data = Random(16384, 8);
  Write(base, data);
  std::thread thread([&] {
    for (int i = 0; i < 5; ++i) Expect(base, data, {{0, 16384}, {1, 4000}});
  });
  DeviceStream* const stream = Stream();
  for (std::uint32_t i = 0; i < 20; ++i) {
    const DeviceAddress at = harness_->ReserveAddresses(kGranule);
    EXPECT_TRUE(device_->Map(at, kGranule).ok());
    device_->AddAllocation(at, kGranule);
    stream->Fill(at, i, 4, 1024, 1, 0, 0);
    Affine(stream, other, 100, 3, 1);
    EXPECT_EQ(Await(stream), 0);
    device_->RemoveAllocation(at);
    EXPECT_TRUE(device_->Unmap(at, kGranule).ok());
  }
  thread.join();
}

}  // namespace
}  // namespace pos::conformance
