#include "pos/device/null_device.h"

#include <gtest/gtest.h>

#include <vector>

namespace pos {
namespace {

class OrderSink : public CompletionSink {
 public:
  void OnComplete(std::uint64_t token, DeviceError error) override {
    EXPECT_EQ(error, 0);
    tokens.push_back(token);
  }
  void OnDeviceOutput(OutputKind, std::string_view) override { FAIL(); }
  std::vector<std::uint64_t> tokens;
};

TEST(NullDevice, CompletesEverythingInsideTheCallInOrder) {
  const auto device = NewNullDevice(1 << 20);
  OrderSink sink;
  auto context = device->CreateContext(0, &sink);
  ASSERT_TRUE(context.ok());
  auto stream = (*context)->CreateStream(kStreamDefault, 0);
  auto event = (*context)->CreateEvent(0);
  DeviceError error = -1;
  auto module = (*context)->LoadModule({}, nullptr, &error);
  ASSERT_TRUE(stream.ok() && event.ok() && module.ok());
  EXPECT_EQ(error, 0);
  DeviceFunction* function = (*module)->FindFunction("any");
  ASSERT_NE(function, nullptr);
  EXPECT_EQ((*module)->FindFunction("any"), function);
  EXPECT_FALSE((*event)->TimestampNs().has_value());
  (*stream)->Copy(1, 2, 3, 1);
  (*stream)->Fill(1, 2, 4, 5, 6, 7, 2);
  EXPECT_EQ((*stream)->Launch(function, {}, {}, 3), 0);
  (*stream)->RecordEvent(event->get(), 4);
  (*stream)->WaitEvent(event->get(), 5);
  (*event)->Notify(6);
  (*stream)->Notify(7);
  (*context)->NotifyIdle(8);
  (*stream)->Notify(0);
  EXPECT_EQ(sink.tokens, (std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ((*stream)->Query(), 0);
  EXPECT_TRUE((*event)->TimestampNs().has_value());
}

TEST(NullDevice, CountsMemory) {
  const auto device = NewNullDevice(4 * Device::kMapGranularity);
  EXPECT_TRUE(device->Map(0, 3 * Device::kMapGranularity).ok());
  EXPECT_EQ(device->Map(0, 2 * Device::kMapGranularity).code(),
            Code::kOutOfMemory);
  EXPECT_TRUE(device->Unmap(0, Device::kMapGranularity).ok());
  EXPECT_EQ(device->FreeBytes(), 2 * Device::kMapGranularity);
}

TEST(NullDevice, DigestsWhatItReads) {
  const std::unique_ptr<Device> device = NewNullDevice(1 << 30);
  const std::vector<MemoryRange> ranges = {
      {1 << 21, 0}, {1 << 21, 5}, {4096, 300000}, {0, 300000}};
  std::vector<ckpt::Digest> digests(ranges.size());
  ASSERT_TRUE(device->Digest(ranges, 7, digests).ok());
  const ckpt::DigestKey key(7);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    std::vector<std::byte> bytes(ranges[i].bytes, std::byte{1});
    ASSERT_TRUE(device->Read(ranges[i].address, bytes).ok());
    EXPECT_EQ(digests[i], ckpt::DigestOf(key, bytes));
  }
}

}  // namespace
}  // namespace pos
