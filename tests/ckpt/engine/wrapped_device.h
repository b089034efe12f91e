// A simulated device whose copies can be tampered with on their way: as memory
// that is broken, or a write that nobody announced, would; and whose copies end
// as late as a test likes.
//
// Threads: as a Device. Tamper: while nothing runs. Holding ends back: any.
#ifndef TESTS_CKPT_ENGINE_WRAPPED_DEVICE_H_
#define TESTS_CKPT_ENGINE_WRAPPED_DEVICE_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/cuda_impl/device_sim/sim_device.h"
#include "pos/runner/session.h"

namespace pos::ckpt {

class WrappedDevice : public Device {
 public:
  // What a copy of a stream that is not ordered after anybody else's is about
  // to do; false swallows it.
  struct CopyOrder {
    DeviceAddress dst;
    DeviceAddress src;
    std::uint64_t bytes;
  };
  using Tamper = std::function<void(DeviceStream*, const CopyOrder&)>;

  WrappedDevice(const SessionOptions& options, std::uint64_t memory_bytes) {
    sim::SimOptions sim;
    sim.memory_bytes = memory_bytes;
    sim.compute_threads = 1;
    sim.arena_base = options.layout.PartBase(0);
    sim.arena_bytes = options.layout.PartBytes();
    auto device = sim::NewSimDevice(sim);
    EXPECT_TRUE(device.ok()) << device.status().ToString();
    device_ = std::move(*device);
  }
  // Called after each copy that POS itself submits, on the same stream.
  void AfterOwnCopies(Tamper tamper) { tamper_ = std::move(tamper); }

  // From now on what POS itself submits ends, as far as POS can see, when
  // EndHeld says so: copies take as long as the test likes. The device has done
  // them meanwhile or not.
  void HoldOwnEnds() {
    MutexLock lock(&held_mu_);
    holding_ = true;
  }
  // What is held now ends, and nothing is held any more.
  void StopHolding() {
    MutexLock lock(&held_mu_);
    holding_ = false;
    for (const Held& held : held_)
      held.sink->OnComplete(held.token, held.error);
    held_.clear();
  }
  // How many ends are held.
  [[nodiscard]] std::size_t held() {
    MutexLock lock(&held_mu_);
    return held_.size();
  }
  // The first `count` of them end.
  void EndHeld(std::size_t count) {
    MutexLock lock(&held_mu_);
    for (std::size_t i = 0; i < count; ++i) {
      held_[i].sink->OnComplete(held_[i].token, held_[i].error);
    }
    held_.erase(held_.begin(),
                held_.begin() + static_cast<std::ptrdiff_t>(count));
  }

  [[nodiscard]] const DeviceInfo& info() const override {
    return device_->info();
  }
  [[nodiscard]] std::uint64_t FreeBytes() const override {
    return device_->FreeBytes();
  }
  Status Map(DeviceAddress address, std::uint64_t bytes) override {
    return device_->Map(address, bytes);
  }
  Status Unmap(DeviceAddress address, std::uint64_t bytes) override {
    return device_->Unmap(address, bytes);
  }
  Result<std::shared_ptr<DevicePhysical>> CreatePhysical(
      std::uint64_t bytes) override {
    return device_->CreatePhysical(bytes);
  }
  Status MapPhysical(DeviceAddress address,
                     const std::shared_ptr<DevicePhysical>& physical) override {
    return device_->MapPhysical(address, physical);
  }
  void AddAllocation(DeviceAddress address, std::uint64_t bytes) override {
    device_->AddAllocation(address, bytes);
  }
  void RemoveAllocation(DeviceAddress address) override {
    device_->RemoveAllocation(address);
  }
  Status MapHost(DeviceAddress address, std::uint64_t bytes) override {
    return device_->MapHost(address, bytes);
  }
  Status UnmapHost(DeviceAddress address, std::uint64_t bytes) override {
    return device_->UnmapHost(address, bytes);
  }
  Result<std::unique_ptr<DeviceContext>> CreateContext(
      std::uint32_t flags, CompletionSink* sink) override {
    // The first is the client's.
    if (contexts_++ == 0) return device_->CreateContext(flags, sink);
    auto own = std::make_unique<Sink>(this, sink);
    POS_ASSIGN_OR_RETURN(std::unique_ptr<DeviceContext> context,
                         device_->CreateContext(flags, own.get()));
    return std::unique_ptr<DeviceContext>(
        std::make_unique<Context>(this, std::move(own), std::move(context)));
  }
  Status Read(DeviceAddress src, std::span<std::byte> dst) override {
    return device_->Read(src, dst);
  }
  Status Write(DeviceAddress dst, std::span<const std::byte> src) override {
    return device_->Write(dst, src);
  }
  Status Digest(std::span<const MemoryRange> ranges, std::uint64_t seed,
                std::span<ckpt::Digest> digests) override {
    return device_->Digest(ranges, seed, digests);
  }
  [[nodiscard]] std::uint64_t NowNs() const override {
    return device_->NowNs();
  }

 private:
  struct Held {
    CompletionSink* sink;
    std::uint64_t token;
    DeviceError error;
  };
  void OnOwnEnd(const Held& end) {
    MutexLock lock(&held_mu_);
    if (holding_) {
      held_.push_back(end);
    } else {
      end.sink->OnComplete(end.token, end.error);
    }
  }
  // Whoever waits for them has gone.
  void Forget(const CompletionSink* sink) {
    MutexLock lock(&held_mu_);
    std::erase_if(held_, [sink](const Held& h) { return h.sink == sink; });
  }

  // POS's own: between the device and whoever waits.
  class Sink : public CompletionSink {
   public:
    Sink(WrappedDevice* device, CompletionSink* sink)
        : device_(device), sink_(sink) {}
    ~Sink() override { device_->Forget(sink_); }
    void OnComplete(std::uint64_t token, DeviceError error) override {
      device_->OnOwnEnd({sink_, token, error});
    }
    void OnDeviceOutput(OutputKind kind, std::string_view text) override {
      sink_->OnDeviceOutput(kind, text);
    }

   private:
    WrappedDevice* const device_;
    CompletionSink* const sink_;
  };
  class Stream : public DeviceStream {
   public:
    Stream(WrappedDevice* device, std::unique_ptr<DeviceStream> stream)
        : device_(device), stream_(std::move(stream)) {}
    void Copy(DeviceAddress dst, DeviceAddress src, std::uint64_t bytes,
              std::uint64_t token) override {
      if (!device_->tamper_) {
        stream_->Copy(dst, src, bytes, token);
        return;
      }
      stream_->Copy(dst, src, bytes, 0);
      device_->tamper_(stream_.get(), {dst, src, bytes});
      stream_->Notify(token);
    }
    void Fill(DeviceAddress dst, std::uint32_t value, std::uint32_t width,
              std::uint64_t count, std::uint64_t rows, std::uint64_t pitch,
              std::uint64_t token) override {
      stream_->Fill(dst, value, width, count, rows, pitch, token);
    }
    DeviceError Launch(DeviceFunction* function, const LaunchConfig& config,
                       std::span<const std::byte> params,
                       std::uint64_t token) override {
      return stream_->Launch(function, config, params, token);
    }
    void RecordEvent(DeviceEvent* event, std::uint64_t token) override {
      stream_->RecordEvent(event, token);
    }
    void WaitEvent(DeviceEvent* event, std::uint64_t token) override {
      stream_->WaitEvent(event, token);
    }
    void Notify(std::uint64_t token) override { stream_->Notify(token); }
    [[nodiscard]] std::optional<DeviceError> Query() override {
      return stream_->Query();
    }

   private:
    WrappedDevice* const device_;
    const std::unique_ptr<DeviceStream> stream_;
  };
  class Context : public DeviceContext {
   public:
    Context(WrappedDevice* device, std::unique_ptr<Sink> sink,
            std::unique_ptr<DeviceContext> context)
        : device_(device),
          sink_(std::move(sink)),
          context_(std::move(context)) {}
    [[nodiscard]] DeviceStream* default_stream() override {
      return context_->default_stream();
    }
    Result<std::unique_ptr<DeviceStream>> CreateStream(
        std::uint32_t flags, std::int32_t priority) override {
      POS_ASSIGN_OR_RETURN(std::unique_ptr<DeviceStream> stream,
                           context_->CreateStream(flags, priority));
      return std::unique_ptr<DeviceStream>(
          std::make_unique<Stream>(device_, std::move(stream)));
    }
    Result<std::unique_ptr<DeviceEvent>> CreateEvent(
        std::uint32_t flags) override {
      return context_->CreateEvent(flags);
    }
    Result<std::unique_ptr<DeviceModule>> LoadModule(
        std::span<const std::byte> image, ModulePlacer* placer,
        DeviceError* error) override {
      return context_->LoadModule(image, placer, error);
    }
    DeviceError SetLimit(DeviceLimit limit, std::uint64_t value,
                         ModulePlacer* placer,
                         std::uint64_t* in_effect) override {
      return context_->SetLimit(limit, value, placer, in_effect);
    }
    void RestoreHeap(DeviceAddress address, std::uint64_t bytes) override {
      context_->RestoreHeap(address, bytes);
    }
    void NotifyIdle(std::uint64_t token) override {
      context_->NotifyIdle(token);
    }
    [[nodiscard]] DeviceError sticky_error() const override {
      return context_->sticky_error();
    }
    void Cancel() override { context_->Cancel(); }

   private:
    WrappedDevice* const device_;
    const std::unique_ptr<Sink> sink_;
    const std::unique_ptr<DeviceContext> context_;  // ends before the sink
  };

  std::unique_ptr<Device> device_;
  int contexts_ = 0;
  Tamper tamper_;
  Mutex held_mu_;
  bool holding_ POS_GUARDED_BY(held_mu_) = false;
  std::vector<Held> held_ POS_GUARDED_BY(held_mu_);
};

}  // namespace pos::ckpt

#endif  // TESTS_CKPT_ENGINE_WRAPPED_DEVICE_H_
