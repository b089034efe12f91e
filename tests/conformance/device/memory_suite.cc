// Device conformance: memory, copies, fills.
#include <random>

#include "tests/conformance/device/fixture.h"

namespace pos::conformance {
namespace {

constexpr std::uint64_t kGranule = Device::kMapGranularity;

TEST_F(DeviceTest, SaysWhatItIs) {
  const DeviceInfo& info = device_->info();
  EXPECT_FALSE(info.kind.empty());
  EXPECT_FALSE(info.name.empty());
  EXPECT_NE(info.uuid, (std::array<std::byte, 16>{}));
  EXPECT_GE(info.memory_bytes, harness_->memory_bytes());
  std::int32_t previous = 0;
  std::map<std::int32_t, std::int32_t> values;
  for (const auto& [number, value] : info.attributes) {
    EXPECT_GT(number, previous);
    previous = number;
    values[number] = value;
  }
  EXPECT_GE(values[16], 1);   // multiprocessors
  EXPECT_EQ(values[10], 32);  // warp
  EXPECT_GE(values[75], 7);   // compute capability
}

TEST_F(DeviceTest, MappedMemoryIsZeroEachTime) {
  const DeviceAddress at = harness_->ReserveAddresses(2 * kGranule);
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(device_->Map(at, 2 * kGranule).ok());
    const auto bytes = Read<std::uint64_t>(at, 2 * kGranule / 8);
    for (const std::uint64_t word : bytes) ASSERT_EQ(word, 0u);
    Write(at, std::vector<std::uint64_t>(2 * kGranule / 8, 77));
    ASSERT_TRUE(device_->Unmap(at, 2 * kGranule).ok());
  }
}

TEST_F(DeviceTest, CountsFreeMemory) {
  const std::uint64_t before = device_->FreeBytes();
  const DeviceAddress at = harness_->ReserveAddresses(4 * kGranule);
  ASSERT_TRUE(device_->Map(at, 4 * kGranule).ok());
  EXPECT_LE(device_->FreeBytes(), before - 4 * kGranule);
  ASSERT_TRUE(device_->Unmap(at, 4 * kGranule).ok());
  EXPECT_EQ(device_->FreeBytes(), before);
}

TEST_F(DeviceTest, RunsOutOfMemoryAndRecovers) {
  const std::uint64_t half = harness_->memory_bytes() / 2 / kGranule * kGranule;
  const DeviceAddress at = harness_->ReserveAddresses(half);
  const DeviceAddress more = harness_->ReserveAddresses(2 * half);
  ASSERT_TRUE(device_->Map(at, half).ok());
  EXPECT_EQ(device_->Map(more, harness_->memory_bytes()).code(),
            Code::kOutOfMemory);
  ASSERT_TRUE(device_->Unmap(at, half).ok());
  const DeviceAddress data = Allocate(4);
  Affine(Stream(), data, 1, 1, 9);
  ASSERT_EQ(AwaitIdle(), 0);
  EXPECT_EQ(ReadWord(data), 9u);
}

TEST_F(DeviceTest, RefusesToMapTwiceOrToUnmapNothing) {
  const DeviceAddress at = harness_->ReserveAddresses(kGranule);
  EXPECT_FALSE(device_->Unmap(at, kGranule).ok());
  ASSERT_TRUE(device_->Map(at, kGranule).ok());
  EXPECT_FALSE(device_->Map(at, kGranule).ok());
  EXPECT_FALSE(device_->Map(at + 512, kGranule).ok());
}

TEST_F(DeviceTest, CopiesAllSizesAndAlignmentsInAllDirections) {
  const std::size_t kMax = (1 << 20) + 100;
  auto* host = static_cast<unsigned char*>(harness_->HostMemory(2 * kMax));
  auto* back = host + kMax;
  const auto host_at = reinterpret_cast<DeviceAddress>(host);
  const auto back_at = reinterpret_cast<DeviceAddress>(back);
  std::mt19937 random(4);
  for (std::size_t i = 0; i < kMax; ++i) {
    host[i] = static_cast<unsigned char>(random());
  }
  const DeviceAddress a = Allocate(kMax);
  const DeviceAddress b = Allocate(kMax);
  DeviceStream* stream = Stream();
  for (const std::size_t bytes :
       {0ul,   1ul,   2ul,    3ul,    4ul,     5ul,     8ul,
        15ul,  16ul,  31ul,   63ul,   64ul,    65ul,    255ul,
        511ul, 513ul, 4095ul, 4097ul, 65535ul, 65537ul, 1ul << 20}) {
    for (const std::size_t shift : {0ul, 1ul, 3ul, 8ul, 13ul}) {
      std::memset(back, 0xcc, bytes + 64);
      stream->Copy(a + shift, host_at + 2 * shift, bytes, 0);
      stream->Copy(b + 3 * shift, a + shift, bytes, 0);
      stream->Copy(back_at + 16 + shift, b + 3 * shift, bytes, 0);
      ASSERT_EQ(Await(stream), 0);
      ASSERT_EQ(std::memcmp(back + 16 + shift, host + 2 * shift, bytes), 0)
          << bytes << " bytes, shift " << shift;
      ASSERT_EQ(back[15 + shift], 0xcc);
      ASSERT_EQ(back[16 + shift + bytes], 0xcc);
    }
  }
}

TEST_F(DeviceTest, CopiesFromOrdinaryMemoryOfTheProcess) {
  std::vector<std::uint32_t> staging(50000);
  for (std::size_t i = 0; i < staging.size(); ++i) {
    staging[i] = static_cast<std::uint32_t>(i * 7);
  }
  const DeviceAddress data = Allocate(staging.size() * 4);
  DeviceStream* stream = Stream();
  stream->Copy(data, reinterpret_cast<DeviceAddress>(staging.data()),
               staging.size() * 4, 0);
  ASSERT_EQ(Await(stream), 0);
  EXPECT_EQ(Read<std::uint32_t>(data, staging.size()), staging);
}

TEST_F(DeviceTest, CopiesAcrossNeighbouringAllocations) {
  const DeviceAddress at = harness_->ReserveAddresses(2 * kGranule);
  ASSERT_TRUE(device_->Map(at, 2 * kGranule).ok());
  device_->AddAllocation(at, kGranule);
  device_->AddAllocation(at + kGranule, kGranule);
  DeviceStream* stream = Stream();
  stream->Fill(at, 0x55, 1, 2 * kGranule, 1, 0, 0);
  stream->Copy(at + kGranule - 100, at, 200, 0);
  ASSERT_EQ(Await(stream), 0);
}

TEST_F(DeviceTest, FillsEveryWidthAndPitch) {
  const DeviceAddress data = Allocate(8192);
  DeviceStream* stream = Stream();
  for (const std::uint32_t width : {1u, 2u, 4u}) {
    for (const std::uint64_t count : {0ull, 1ull, 3ull, 31ull, 100ull}) {
      for (const std::uint64_t rows : {1ull, 2ull, 7ull}) {
        SCOPED_TRACE(testing::Message()
                     << width << " " << count << " " << rows);
        const std::uint64_t pitch = count * width + 4 * width;
        stream->Fill(data, 0xee, 1, 8192, 1, 0, 0);
        stream->Fill(data + 64, 0xa1b2c3d4, width, count, rows, pitch, 0);
        ASSERT_EQ(Await(stream), 0);
        std::vector<unsigned char> want(8192, 0xee);
        const std::uint32_t value = 0xa1b2c3d4;
        for (std::uint64_t row = 0; row < rows; ++row) {
          for (std::uint64_t i = 0; i < count; ++i) {
            std::memcpy(&want[64 + row * pitch + i * width], &value, width);
          }
        }
        ASSERT_EQ(Read<unsigned char>(data, 8192), want);
      }
    }
  }
}

TEST_F(DeviceTest, FillsLargeRanges) {
  const std::uint64_t bytes = 9 * kGranule + 12;
  const DeviceAddress data = Allocate(bytes);
  DeviceStream* stream = Stream();
  stream->Fill(data, 0x01020304, 4, bytes / 4, 1, 0, 0);
  ASSERT_EQ(Await(stream), 0);
  for (const std::uint32_t word : Read<std::uint32_t>(data, bytes / 4)) {
    ASSERT_EQ(word, 0x01020304u);
  }
}

TEST_F(DeviceTest, KernelsReachMappedHostMemory) {
  auto* host = static_cast<std::uint32_t*>(harness_->HostMemory(8192));
  const auto at = reinterpret_cast<DeviceAddress>(host);
  ASSERT_TRUE(device_->MapHost(at, 8192).ok());
  host[5] = 10;
  Affine(Stream(), at, 100, 3, 1);
  ASSERT_EQ(AwaitIdle(), 0);
  EXPECT_EQ(host[5], 31u);
  EXPECT_EQ(host[99], 1u);
  EXPECT_EQ(host[100], 0u);
  ASSERT_TRUE(device_->UnmapHost(at, 8192).ok());
  EXPECT_FALSE(device_->UnmapHost(at, 8192).ok());
}

TEST_F(DeviceTest, CopyOutsideAllocationsIsAStickyFault) {
  const DeviceAddress data = Allocate(kGranule);
  auto* host = harness_->HostMemory(4096);
  DeviceStream* stream = Stream();
  stream->Copy(data + kGranule - 8, reinterpret_cast<DeviceAddress>(host), 16,
               NewToken());
  EXPECT_EQ(Await(stream), harness_->errors().illegal_address);
  EXPECT_EQ(context_->sticky_error(), harness_->errors().illegal_address);
}

TEST_F(DeviceTest, FreedAllocationIsOutOfReach) {
  const DeviceAddress data = Allocate(4096);
  DeviceStream* stream = Stream();
  Affine(stream, data, 4, 1, 1);
  ASSERT_EQ(Await(stream), 0);
  device_->RemoveAllocation(data);
  if (!harness_->exact_bounds()) {
    ASSERT_TRUE(device_->Unmap(data, kGranule).ok());
  }
  Affine(stream, data, 4, 1, 1);
  EXPECT_EQ(Await(stream), harness_->errors().illegal_address);
}

}  // namespace
}  // namespace pos::conformance
