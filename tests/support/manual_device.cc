#include "tests/support/manual_device.h"

#include <algorithm>
#include <utility>

#include "pos/base/clock.h"
#include "pos/base/log.h"

namespace pos {

// CUDA_ERROR_CONTEXT_IS_DESTROYED; this file knows no other code of CUDA.
constexpr DeviceError kDestroyed = 709;

class ManualEvent : public DeviceEvent {
 public:
  ManualEvent(ManualDevice* device, ManualDevice::Context* context)
      : device_(device), context_(context) {
    device_->AddChild(context_, 1, "event");
  }
  ~ManualEvent() override { device_->AddChild(context_, -1, "event"); }
  [[nodiscard]] std::optional<DeviceError> Query() override { return 0; }
  void Notify(std::uint64_t token) override {
    device_->Submit(context_, token, true);
  }
  [[nodiscard]] std::optional<std::uint64_t> TimestampNs() override {
    return at_;
  }
  void SetRecorded(std::uint64_t timestamp_ns) override { at_ = timestamp_ns; }

 private:
  ManualDevice* const device_;
  ManualDevice::Context* const context_;
  std::optional<std::uint64_t> at_;
};

class ManualStream : public DeviceStream {
 public:
  ManualStream(ManualDevice* device, ManualDevice::Context* context, bool owned)
      : device_(device), context_(context), owned_(owned) {
    if (owned_) device_->AddChild(context_, 1, "stream");
  }
  ~ManualStream() override {
    if (owned_) device_->AddChild(context_, -1, "stream");
  }
  void Copy(DeviceAddress, DeviceAddress, std::uint64_t,
            std::uint64_t token) override {
    device_->Submit(context_, token, false);
  }
  void Fill(DeviceAddress, std::uint32_t, std::uint32_t, std::uint64_t,
            std::uint64_t, std::uint64_t, std::uint64_t token) override {
    device_->Submit(context_, token, false);
  }
  DeviceError Launch(DeviceFunction*, const LaunchConfig&,
                     std::span<const std::byte>, std::uint64_t token) override {
    device_->Submit(context_, token, false);
    return 0;
  }
  void RecordEvent(DeviceEvent* event, std::uint64_t token) override {
    event->SetRecorded(MonotonicNs());
    device_->Submit(context_, token, false);
  }
  void WaitEvent(DeviceEvent*, std::uint64_t token) override {
    device_->Submit(context_, token, false);
  }
  void Notify(std::uint64_t token) override {
    device_->Submit(context_, token, true);
  }
  [[nodiscard]] std::optional<DeviceError> Query() override {
    const MutexLock lock(&device_->mu_);
    if (context_->sticky != 0) return context_->sticky;
    return context_->waiting.empty() ? std::optional<DeviceError>(0)
                                     : std::nullopt;
  }

 private:
  ManualDevice* const device_;
  ManualDevice::Context* const context_;
  const bool owned_;
};

class ManualFunction : public DeviceFunction {
 public:
  explicit ManualFunction(std::string_view name) {
    info_.name = std::string(name);
    info_.params = {{0, 8}};
    info_.params_bytes = 8;
  }
  [[nodiscard]] const FunctionInfo& info() const override { return info_; }
  DeviceError SetAttribute(std::int32_t attribute, std::int32_t) override {
    return attribute < 10 ? 0 : 1;
  }

 private:
  FunctionInfo info_;
};

// Has every function, and, when its image is long enough, a variable.
class ManualModule : public DeviceModule {
 public:
  ManualModule(ManualDevice* device, ManualDevice::Context* context)
      : device_(device), context_(context) {
    device_->AddChild(context_, 1, "module");
  }
  ~ManualModule() override { device_->AddChild(context_, -1, "module"); }
  Status PlaceVariable(ModulePlacer* placer, std::uint64_t bytes) {
    POS_ASSIGN_OR_RETURN(const DeviceAddress at,
                         placer->Place("variable", bytes, 16));
    globals_.push_back({"variable", at, bytes, false, false});
    return {};
  }
  DeviceFunction* FindFunction(std::string_view name) override {
    if (name == "absent") return nullptr;
    auto& function = functions_[std::string(name)];
    if (function == nullptr) function = std::make_unique<ManualFunction>(name);
    return function.get();
  }
  [[nodiscard]] std::vector<std::string> FunctionNames() const override {
    return {"one", "two"};
  }
  [[nodiscard]] const std::vector<GlobalInfo>& Globals() const override {
    return globals_;
  }

 private:
  ManualDevice* const device_;
  ManualDevice::Context* const context_;
  std::map<std::string, std::unique_ptr<ManualFunction>> functions_;
  std::vector<GlobalInfo> globals_;
};

class ManualContext : public DeviceContext {
 public:
  ManualContext(ManualDevice* device, ManualDevice::Context* context)
      : device_(device),
        context_(context),
        default_stream_(device, context, false) {}
  ~ManualContext() override { device_->Close(context_); }
  [[nodiscard]] DeviceStream* default_stream() override {
    return &default_stream_;
  }
  Result<std::unique_ptr<DeviceStream>> CreateStream(std::uint32_t,
                                                     std::int32_t) override {
    POS_RETURN_IF_ERROR(TakeFailure());
    return std::unique_ptr<DeviceStream>(
        std::make_unique<ManualStream>(device_, context_, true));
  }
  Result<std::unique_ptr<DeviceEvent>> CreateEvent(std::uint32_t) override {
    POS_RETURN_IF_ERROR(TakeFailure());
    return std::unique_ptr<DeviceEvent>(
        std::make_unique<ManualEvent>(device_, context_));
  }
  Result<std::unique_ptr<DeviceModule>> LoadModule(
      std::span<const std::byte> image, ModulePlacer* placer,
      DeviceError* error) override {
    *error = 209;
    POS_RETURN_IF_ERROR(TakeFailure());
    auto module = std::make_unique<ManualModule>(device_, context_);
    if (image.size() >= 8) {
      POS_RETURN_IF_ERROR(module->PlaceVariable(placer, image.size()));
    }
    *error = 0;
    return std::unique_ptr<DeviceModule>(std::move(module));
  }
  DeviceError SetLimit(DeviceLimit, std::uint64_t value, ModulePlacer*,
                       std::uint64_t* in_effect) override {
    *in_effect = value;
    return 0;
  }
  void RestoreHeap(DeviceAddress, std::uint64_t) override {}
  void NotifyIdle(std::uint64_t token) override {
    device_->Submit(context_, token, true);
  }
  [[nodiscard]] DeviceError sticky_error() const override {
    const MutexLock lock(&device_->mu_);
    return context_->sticky;
  }
  void Cancel() override {
    std::vector<ManualDevice::Report> reports;
    {
      const MutexLock lock(&device_->mu_);
      device_->FailAll(context_, kDestroyed, &reports);
    }
    ManualDevice::Send(reports);
  }

 private:
  Status TakeFailure() {
    const MutexLock lock(&device_->mu_);
    if (!std::exchange(device_->fail_create_, false)) return {};
    return OutOfMemory("as the test wanted");
  }
  ManualDevice* const device_;
  ManualDevice::Context* const context_;
  ManualStream default_stream_;
};

ManualDevice::ManualDevice(std::uint64_t memory_bytes)
    : free_bytes_(memory_bytes) {
  info_.kind = "manual";
  info_.name = "Manual Device";
  info_.memory_bytes = memory_bytes;
}

ManualDevice::~ManualDevice() = default;

void ManualDevice::SetManual(bool on) {
  const MutexLock lock(&mu_);
  manual_ = on;
}

void ManualDevice::Submit(Context* context, std::uint64_t token,
                          bool waits_only) {
  std::vector<Report> reports;
  {
    const MutexLock lock(&mu_);
    if (!context->living) violations_.push_back("work for a dead context");
    const bool wait = waits_only ? !context->waiting.empty() : manual_;
    if (context->sticky != 0 || !wait) {
      reports.push_back({context->sink, token, context->sticky});
    } else {
      context->waiting.push_back(token);
    }
  }
  Send(reports);
}

std::size_t ManualDevice::Release(int number, DeviceError error) {
  std::vector<Report> reports;
  {
    const MutexLock lock(&mu_);
    for (const auto& context : contexts_) {
      if (number >= 0 && context->number != number) continue;
      for (const std::uint64_t token : context->waiting) {
        reports.push_back({context->sink, token, error});
      }
      context->waiting.clear();
    }
  }
  Send(reports);
  return reports.size();
}

void ManualDevice::Fault(DeviceError error) {
  std::vector<Report> reports;
  {
    const MutexLock lock(&mu_);
    for (const auto& context : contexts_) {
      if (context->living) FailAll(context.get(), error, &reports);
    }
  }
  Send(reports);
}

void ManualDevice::FailAll(Context* context, DeviceError error,
                           std::vector<Report>* out) {
  if (context->sticky == 0) context->sticky = error;
  for (const std::uint64_t token : context->waiting) {
    out->push_back({context->sink, token, context->sticky});
  }
  context->waiting.clear();
}

void ManualDevice::Send(const std::vector<Report>& reports) {
  for (const Report& r : reports) {
    if (r.token != 0) r.sink->OnComplete(r.token, r.error);
  }
}

std::size_t ManualDevice::Waiting() {
  const MutexLock lock(&mu_);
  std::size_t sum = 0;
  for (const auto& context : contexts_) sum += context->waiting.size();
  return sum;
}

std::vector<std::string> ManualDevice::Violations() {
  const MutexLock lock(&mu_);
  return violations_;
}

void ManualDevice::FailNextCreate() {
  const MutexLock lock(&mu_);
  fail_create_ = true;
}

void ManualDevice::FailNextMap() {
  const MutexLock lock(&mu_);
  fail_map_ = true;
}

void ManualDevice::FailNextMapHost() {
  const MutexLock lock(&mu_);
  fail_map_host_ = true;
}

Status ManualDevice::MapHost(DeviceAddress, std::uint64_t) {
  const MutexLock lock(&mu_);
  if (std::exchange(fail_map_host_, false)) {
    return OutOfMemory("as the test wanted");
  }
  return {};
}

std::uint64_t ManualDevice::MappedBytes() {
  const MutexLock lock(&mu_);
  std::uint64_t sum = 0;
  for (const auto& [address, bytes] : mapped_) sum += bytes;
  return sum;
}

void ManualDevice::AddChild(Context* context, int by, const char* what) {
  const MutexLock lock(&mu_);
  context->children += by;
  if (!context->living) {
    violations_.push_back(std::string(what) + " outlived its context");
  }
}

void ManualDevice::Close(Context* context) {
  std::vector<Report> reports;
  {
    const MutexLock lock(&mu_);
    if (context->children != 0) {
      violations_.push_back("context destroyed before its children");
    }
    FailAll(context, kDestroyed, &reports);
    context->living = false;
  }
  Send(reports);
}

Result<std::unique_ptr<DeviceContext>> ManualDevice::CreateContext(
    std::uint32_t, CompletionSink* sink) {
  const MutexLock lock(&mu_);
  if (std::exchange(fail_create_, false)) {
    return OutOfMemory("as the test wanted");
  }
  contexts_.push_back(std::make_unique<Context>());
  Context* const context = contexts_.back().get();
  context->number = static_cast<int>(contexts_.size()) - 1;
  context->sink = sink;
  return std::unique_ptr<DeviceContext>(
      std::make_unique<ManualContext>(this, context));
}

Status ManualDevice::Map(DeviceAddress address, std::uint64_t bytes) {
  const MutexLock lock(&mu_);
  if (std::exchange(fail_map_, false) || bytes > free_bytes_) {
    return OutOfMemory("manual device is full");
  }
  const auto next = mapped_.lower_bound(address);
  const bool overlaps =
      (next != mapped_.end() && next->first < address + bytes) ||
      (next != mapped_.begin() &&
       std::prev(next)->first + std::prev(next)->second > address);
  if (overlaps) violations_.push_back("mapped twice: " + Hex(address));
  mapped_[address] = bytes;
  free_bytes_ -= bytes;
  return {};
}

Status ManualDevice::Unmap(DeviceAddress address, std::uint64_t bytes) {
  const MutexLock lock(&mu_);
  const auto it = mapped_.find(address);
  if (it == mapped_.end() || it->second != bytes) {
    violations_.push_back("unmapped what was not mapped: " + Hex(address));
    return Invalid("not mapped");
  }
  mapped_.erase(it);
  free_bytes_ += bytes;
  return {};
}

void ManualDevice::AddAllocation(DeviceAddress address, std::uint64_t bytes) {
  const MutexLock lock(&mu_);
  if (!allocations_.emplace(address, bytes).second) {
    violations_.push_back("allocated twice: " + Hex(address));
  }
}

void ManualDevice::RemoveAllocation(DeviceAddress address) {
  const MutexLock lock(&mu_);
  if (allocations_.erase(address) == 0) {
    violations_.push_back("removed what was not there: " + Hex(address));
  }
}

Status ManualDevice::Read(DeviceAddress, std::span<std::byte> dst) {
  std::fill(dst.begin(), dst.end(), std::byte{0});
  return {};
}

std::uint64_t ManualDevice::NowNs() const { return MonotonicNs(); }

}  // namespace pos
