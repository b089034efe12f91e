#include "pos/device/null_device.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <utility>

#include "pos/base/clock.h"
#include "pos/device/host_digest.h"

namespace pos {
namespace {

void Report(CompletionSink* sink, std::uint64_t token) {
  if (token != 0) sink->OnComplete(token, 0);
}

class NullFunction : public DeviceFunction {
 public:
  explicit NullFunction(std::string_view name) {
    info_.name = std::string(name);
  }
  [[nodiscard]] const FunctionInfo& info() const override { return info_; }
  DeviceError SetAttribute(std::int32_t, std::int32_t) override { return 0; }

 private:
  FunctionInfo info_;
};

class NullModule : public DeviceModule {
 public:
  DeviceFunction* FindFunction(std::string_view name) override {
    const auto found = functions_.find(name);
    if (found != functions_.end()) return found->second.get();
    return functions_
        .emplace(std::string(name), std::make_unique<NullFunction>(name))
        .first->second.get();
  }
  [[nodiscard]] std::vector<std::string> FunctionNames() const override {
    std::vector<std::string> names;
    for (const auto& [name, function] : functions_) names.push_back(name);
    return names;
  }
  [[nodiscard]] const std::vector<GlobalInfo>& Globals() const override {
    return globals_;
  }

 private:
  std::map<std::string, std::unique_ptr<NullFunction>, std::less<>> functions_;
  const std::vector<GlobalInfo> globals_{};
};

class NullEvent : public DeviceEvent {
 public:
  NullEvent(CompletionSink* sink, bool timing) : sink_(sink), timing_(timing) {}
  [[nodiscard]] std::optional<DeviceError> Query() override { return 0; }
  void Notify(std::uint64_t token) override { Report(sink_, token); }
  [[nodiscard]] std::optional<std::uint64_t> TimestampNs() override {
    return timing_ ? recorded_ns_ : std::nullopt;
  }
  void SetRecorded(std::uint64_t timestamp_ns) override {
    recorded_ns_ = timestamp_ns;
  }

 private:
  CompletionSink* const sink_;
  const bool timing_;
  std::optional<std::uint64_t> recorded_ns_;
};

class NullStream : public DeviceStream {
 public:
  explicit NullStream(CompletionSink* sink) : sink_(sink) {}
  void Copy(DeviceAddress, DeviceAddress, std::uint64_t,
            std::uint64_t token) override {
    Report(sink_, token);
  }
  // NOLINTNEXTLINE(readability-function-size): the interface's parameters
  void Fill(DeviceAddress, std::uint32_t, std::uint32_t, std::uint64_t,
            std::uint64_t, std::uint64_t, std::uint64_t token) override {
    Report(sink_, token);
  }
  DeviceError Launch(DeviceFunction*, const LaunchConfig&,
                     std::span<const std::byte>, std::uint64_t token) override {
    Report(sink_, token);
    return 0;
  }
  void RecordEvent(DeviceEvent* event, std::uint64_t token) override {
    event->SetRecorded(MonotonicNs());
    Report(sink_, token);
  }
  void WaitEvent(DeviceEvent*, std::uint64_t token) override {
    Report(sink_, token);
  }
  void Notify(std::uint64_t token) override { Report(sink_, token); }
  [[nodiscard]] std::optional<DeviceError> Query() override { return 0; }

 private:
  CompletionSink* const sink_;
};

class NullContext : public DeviceContext {
 public:
  explicit NullContext(CompletionSink* sink) : sink_(sink), default_(sink) {}
  [[nodiscard]] DeviceStream* default_stream() override { return &default_; }
  Result<std::unique_ptr<DeviceStream>> CreateStream(std::uint32_t,
                                                     std::int32_t) override {
    return std::unique_ptr<DeviceStream>(std::make_unique<NullStream>(sink_));
  }
  Result<std::unique_ptr<DeviceEvent>> CreateEvent(
      std::uint32_t flags) override {
    return std::unique_ptr<DeviceEvent>(
        std::make_unique<NullEvent>(sink_, (flags & kEventDisableTiming) == 0));
  }
  Result<std::unique_ptr<DeviceModule>> LoadModule(
      std::span<const std::byte>, ModulePlacer*, DeviceError* error) override {
    *error = 0;
    return std::unique_ptr<DeviceModule>(std::make_unique<NullModule>());
  }
  DeviceError SetLimit(DeviceLimit, std::uint64_t value, ModulePlacer*,
                       std::uint64_t* in_effect) override {
    *in_effect = value;
    return 0;
  }
  void RestoreHeap(DeviceAddress, std::uint64_t) override {}
  void NotifyIdle(std::uint64_t token) override { Report(sink_, token); }
  [[nodiscard]] DeviceError sticky_error() const override { return 0; }
  void Cancel() override {}

 private:
  CompletionSink* const sink_;
  NullStream default_;
};

class NullDevice : public Device {
 public:
  explicit NullDevice(std::uint64_t memory_bytes) : free_bytes_(memory_bytes) {
    info_.kind = "null";
    info_.name = "POS Null Device";
    info_.memory_bytes = memory_bytes;
  }
  [[nodiscard]] const DeviceInfo& info() const override { return info_; }
  [[nodiscard]] std::uint64_t FreeBytes() const override {
    return free_bytes_.load(std::memory_order_relaxed);
  }
  Status Map(DeviceAddress, std::uint64_t bytes) override {
    if (bytes > FreeBytes()) {
      return OutOfMemory("null device: " + std::to_string(bytes) +
                         " bytes asked for, " + std::to_string(FreeBytes()) +
                         " are free");
    }
    free_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    return OkStatus();
  }
  Status Unmap(DeviceAddress, std::uint64_t bytes) override {
    free_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    return OkStatus();
  }
  void AddAllocation(DeviceAddress, std::uint64_t) override {}
  void RemoveAllocation(DeviceAddress) override {}
  Status MapHost(DeviceAddress, std::uint64_t) override { return OkStatus(); }
  Status UnmapHost(DeviceAddress, std::uint64_t) override { return OkStatus(); }
  Result<std::unique_ptr<DeviceContext>> CreateContext(
      std::uint32_t, CompletionSink* sink) override {
    return std::unique_ptr<DeviceContext>(std::make_unique<NullContext>(sink));
  }
  Status Read(DeviceAddress, std::span<std::byte> dst) override {
    std::fill(dst.begin(), dst.end(), std::byte{0});
    return OkStatus();
  }
  Status Write(DeviceAddress, std::span<const std::byte>) override {
    return OkStatus();
  }
  Status Digest(std::span<const MemoryRange> ranges, std::uint64_t seed,
                std::span<ckpt::Digest> digests) override {
    DigestZeros(ranges, seed, digests);
    return OkStatus();
  }
  [[nodiscard]] std::uint64_t NowNs() const override { return MonotonicNs(); }

 private:
  DeviceInfo info_;
  std::atomic<std::uint64_t> free_bytes_;
};

}  // namespace

std::unique_ptr<Device> NewNullDevice(std::uint64_t memory_bytes) {
  return std::make_unique<NullDevice>(memory_bytes);
}

}  // namespace pos
