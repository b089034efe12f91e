// Fixture of the conformance suite: a device, a context, memory, kernels.
#ifndef POS_TESTS_CONFORMANCE_DEVICE_FIXTURE_H_
#define POS_TESTS_CONFORMANCE_DEVICE_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/clock.h"
#include "pos/base/mutex.h"
#include "tests/conformance/device/harness.h"
#include "tests/conformance/device/kernels.h"

namespace pos::conformance {

// Remembers reports. Any thread.
class Sink : public CompletionSink {
 public:
  void OnComplete(std::uint64_t token, DeviceError error) override {
    const MutexLock lock(&mu_);
    ++reports_[token].times;
    reports_[token].error = error;
    changed_.NotifyAll();
  }
  void OnDeviceOutput(OutputKind, std::string_view text) override {
    const MutexLock lock(&mu_);
    output_ += text;
  }

  // The error that was reported; -1000 when nothing came within a minute.
  DeviceError Await(std::uint64_t token) {
    const Deadline deadline = Deadline::AfterMs(60000);
    const MutexLock lock(&mu_);
    while (reports_.count(token) == 0 && !deadline.Passed()) {
      changed_.WaitFor(&mu_, std::chrono::milliseconds(100));
    }
    return reports_.count(token) == 0 ? -1000 : reports_[token].error;
  }
  int Times(std::uint64_t token) {
    const MutexLock lock(&mu_);
    return reports_.count(token) == 0 ? 0 : reports_[token].times;
  }
  std::string Output() {
    const MutexLock lock(&mu_);
    return output_;
  }

 private:
  struct Report {
    int times = 0;
    DeviceError error = 0;
  };
  Mutex mu_;
  CondVar changed_;
  std::map<std::uint64_t, Report> reports_ POS_GUARDED_BY(mu_);
  std::string output_ POS_GUARDED_BY(mu_);
};

class DeviceTest : public ::testing::Test, protected ModulePlacer {
 protected:
  void SetUp() override {
    harness_ = NewHarness();
    device_ = harness_->device();
    ASSERT_NE(device_, nullptr);
    auto context = device_->CreateContext(0, &sink_);
    ASSERT_TRUE(context.ok()) << context.status().ToString();
    context_ = *std::move(context);
  }
  void TearDown() override {
    modules_.clear();
    events_.clear();
    streams_.clear();
    context_.reset();
    harness_.reset();
  }

  // Mapped, zero, and an allocation of exactly `bytes`.
  DeviceAddress Allocate(std::uint64_t bytes) {
    constexpr std::uint64_t kGranule = Device::kMapGranularity;
    const std::uint64_t mapped = (bytes + kGranule - 1) / kGranule * kGranule;
    const DeviceAddress address = harness_->ReserveAddresses(mapped);
    EXPECT_TRUE(device_->Map(address, mapped).ok());
    device_->AddAllocation(address, bytes);
    return address;
  }
  Result<DeviceAddress> Place(std::string_view name, std::uint64_t bytes,
                              std::uint64_t alignment) override {
    EXPECT_LE(alignment, Device::kMapGranularity);
    const DeviceAddress address = Allocate(bytes);
    // What was there before must not show.
    const std::vector<std::byte> junk(bytes, std::byte{0xa5});
    EXPECT_TRUE(device_->Write(address, junk).ok());
    placed_[std::string(name)] = address;
    return address;
  }

  DeviceStream* Stream(std::uint32_t flags = kStreamNonBlocking,
                       std::int32_t priority = 0) {
    auto stream = context_->CreateStream(flags, priority);
    EXPECT_TRUE(stream.ok()) << stream.status().ToString();
    streams_.push_back(*std::move(stream));
    return streams_.back().get();
  }
  DeviceEvent* Event(std::uint32_t flags = kEventDefault) {
    auto event = context_->CreateEvent(flags);
    EXPECT_TRUE(event.ok()) << event.status().ToString();
    events_.push_back(*std::move(event));
    return events_.back().get();
  }
  DeviceModule* Load(std::string_view text) {
    DeviceError error = -1;
    std::string image(text);
    image += '\0';
    auto module =
        context_->LoadModule(std::as_bytes(std::span(image)), this, &error);
    EXPECT_TRUE(module.ok()) << module.status().ToString();
    EXPECT_EQ(error, 0);
    if (!module.ok()) return nullptr;
    modules_.push_back(*std::move(module));
    return modules_.back().get();
  }
  // From kBasic.
  DeviceFunction* Basic(std::string_view name) {
    if (basic_ == nullptr) basic_ = Load(kBasic);
    DeviceFunction* function = basic_->FindFunction(name);
    EXPECT_NE(function, nullptr) << name;
    return function;
  }

  // A parameter block: each argument at its natural alignment.
  template <typename... T>
  static std::vector<std::byte> Params(T... values) {
    std::vector<std::byte> block;
    const auto add = [&block](auto value) {
      block.resize((block.size() + sizeof(value) - 1) / sizeof(value) *
                   sizeof(value));
      const auto bytes = std::as_bytes(std::span(&value, 1));
      block.insert(block.end(), bytes.begin(), bytes.end());
    };
    (add(values), ...);
    return block;
  }
  static LaunchConfig Threads(std::uint32_t threads, std::uint32_t blocks = 1) {
    LaunchConfig config;
    config.grid[0] = blocks;
    config.block[0] = threads;
    return config;
  }
  void Run(DeviceStream* stream, DeviceFunction* function,
           const std::vector<std::byte>& params, std::uint64_t token = 0,
           const LaunchConfig& config = {}) {
    EXPECT_EQ(stream->Launch(function, config, params, token), 0);
  }
  void Affine(DeviceStream* stream, DeviceAddress data, std::uint32_t n,
              std::uint32_t factor, std::uint32_t term,
              std::uint64_t token = 0) {
    Run(stream, Basic("affine"), Params(data, n, factor, term), token,
        Threads(128, (n + 127) / 128));
  }
  // Holds `stream` up until Release(gate).
  struct Gate {
    DeviceAddress flag = 0;
  };
  Gate Hold(DeviceStream* stream, std::uint64_t token = 0) {
    const Gate gate{Allocate(8)};
    Run(stream, Basic("wait"),
        Params(gate.flag, std::uint32_t{1}, gate.flag + 4), token);
    return gate;
  }
  void Release(const Gate& gate) {
    if (opener_ == nullptr) {
      opener_ = Stream(kStreamNonBlocking);
      one_ = static_cast<std::uint32_t*>(harness_->HostMemory(4096));
      *one_ = 1;
    }
    opener_->Copy(gate.flag, reinterpret_cast<DeviceAddress>(one_), 4, 0);
  }

  DeviceError Await(DeviceStream* stream) {
    const std::uint64_t token = NewToken();
    stream->Notify(token);
    return sink_.Await(token);
  }
  DeviceError AwaitIdle() {
    const std::uint64_t token = NewToken();
    context_->NotifyIdle(token);
    return sink_.Await(token);
  }
  std::uint64_t NewToken() { return ++last_token_; }

  // While the device is idle.
  template <typename T>
  std::vector<T> Read(DeviceAddress address, std::size_t count) {
    std::vector<T> values(count);
    EXPECT_TRUE(
        device_->Read(address, std::as_writable_bytes(std::span(values))).ok());
    return values;
  }
  std::uint32_t ReadWord(DeviceAddress address) {
    return Read<std::uint32_t>(address, 1)[0];
  }
  template <typename T>
  void Write(DeviceAddress address, const std::vector<T>& values) {
    EXPECT_TRUE(device_->Write(address, std::as_bytes(std::span(values))).ok());
  }

  std::unique_ptr<Harness> harness_;
  Device* device_ = nullptr;
  Sink sink_;
  std::unique_ptr<DeviceContext> context_;
  std::vector<std::unique_ptr<DeviceStream>> streams_;
  std::vector<std::unique_ptr<DeviceEvent>> events_;
  std::vector<std::unique_ptr<DeviceModule>> modules_;
  std::map<std::string, DeviceAddress> placed_;

 private:
  DeviceModule* basic_ = nullptr;
  DeviceStream* opener_ = nullptr;
  std::uint32_t* one_ = nullptr;
  std::uint64_t last_token_ = 0;
};

}  // namespace pos::conformance

#endif  // POS_TESTS_CONFORMANCE_DEVICE_FIXTURE_H_
