#include "pos/cuda_impl/device_sim/sim_device.h"

#include <map>
#include <utility>

#include "pos/base/clock.h"
#include "pos/base/mutex.h"
#include "pos/cuda_impl/device_sim/attributes.h"
#include "pos/cuda_impl/device_sim/code_image.h"
#include "pos/cuda_impl/device_sim/context.h"
#include "pos/cuda_impl/device_sim/engine/engine.h"
#include "pos/cuda_impl/device_sim/kernel.h"
#include "pos/device/host_digest.h"

namespace pos::sim {
namespace {

// A piece of the memory's file.
class SimPhysical : public DevicePhysical {
 public:
  SimPhysical(SimMemory* memory, std::uint64_t offset, std::uint64_t bytes)
      : memory_(memory), offset_(offset), bytes_(bytes) {}
  ~SimPhysical() override { memory_->FreePhysical(offset_, bytes_); }
  [[nodiscard]] std::uint64_t bytes() const override { return bytes_; }
  [[nodiscard]] std::uint64_t offset() const { return offset_; }

 private:
  SimMemory* const memory_;
  const std::uint64_t offset_;
  const std::uint64_t bytes_;
};

class SimDevice : public Device {
 public:
  SimDevice(const SimOptions& options, std::unique_ptr<SimMemory> memory,
            std::unique_ptr<Engine> engine)
      : info_(MakeDeviceInfo(options)),
        memory_(std::move(memory)),
        engine_(std::move(engine)),
        images_(options.compute_capability),
        compute_capability_(options.compute_capability) {}

  [[nodiscard]] const DeviceInfo& info() const override { return info_; }
  [[nodiscard]] std::uint64_t FreeBytes() const override {
    return memory_->FreeBytes();
  }
  Status Map(DeviceAddress address, std::uint64_t bytes) override {
    return memory_->Map(address, bytes);
  }
  Status Unmap(DeviceAddress address, std::uint64_t bytes) override {
    POS_RETURN_IF_ERROR(memory_->Unmap(address, bytes));
    mapped_.erase(address);
    return OkStatus();
  }
  Result<std::shared_ptr<DevicePhysical>> CreatePhysical(
      std::uint64_t bytes) override {
    std::uint64_t offset = 0;
    POS_RETURN_IF_ERROR(memory_->TakePhysical(bytes, &offset));
    return std::shared_ptr<DevicePhysical>(
        std::make_shared<SimPhysical>(memory_.get(), offset, bytes));
  }
  Status MapPhysical(DeviceAddress address,
                     const std::shared_ptr<DevicePhysical>& physical) override {
    // The worker hands a device only what came from it.
    const auto* mine = static_cast<const SimPhysical*>(physical.get());
    POS_RETURN_IF_ERROR(
        memory_->MapPhysical(address, mine->bytes(), mine->offset()));
    mapped_[address] = physical;
    return OkStatus();
  }
  void AddAllocation(DeviceAddress address, std::uint64_t bytes) override {
    memory_->AddAllocation(address, bytes);
  }
  void RemoveAllocation(DeviceAddress address) override {
    memory_->RemoveAllocation(address);
  }
  Status MapHost(DeviceAddress address, std::uint64_t bytes) override {
    return memory_->MapHost(address, bytes);
  }
  Status UnmapHost(DeviceAddress address, std::uint64_t bytes) override {
    return memory_->UnmapHost(address, bytes);
  }
  Result<std::unique_ptr<DeviceContext>> CreateContext(
      std::uint32_t /*flags*/, CompletionSink* sink) override {
    return NewSimContext(
        {engine_.get(), memory_.get(), &images_, compute_capability_}, sink);
  }
  Status Read(DeviceAddress src, std::span<std::byte> dst) override {
    POS_RETURN_IF_ERROR(memory_->Read(src, dst));
    engine_->CrossLink(Direction::kDeviceToHost, dst.size());
    return {};
  }
  Status Write(DeviceAddress dst, std::span<const std::byte> src) override {
    POS_RETURN_IF_ERROR(memory_->Write(dst, src));
    engine_->CrossLink(Direction::kHostToDevice, src.size());
    return {};
  }
  // Looks at what is said of these granules only, which stay mapped.
  Status WriteBeside(DeviceAddress dst,
                     std::span<const std::byte> src) override {
    POS_RETURN_IF_ERROR(memory_->Write(dst, src));
    engine_->CrossLink(Direction::kHostToDevice, src.size());
    return {};
  }
  Status Digest(std::span<const MemoryRange> ranges, std::uint64_t seed,
                std::span<ckpt::Digest> digests) override {
    for (const MemoryRange& range : ranges) {
      POS_RETURN_IF_ERROR(memory_->CheckMapped(range.address, range.bytes));
    }
    const MutexLock lock(&digest_mu_);
    DigestHost(ranges, seed, digests);
    return OkStatus();
  }
  [[nodiscard]] std::uint64_t NowNs() const override { return MonotonicNs(); }

 private:
  const DeviceInfo info_;
  const std::unique_ptr<SimMemory> memory_;
  // Mapped physical memory lives as long as its mapping.
  std::map<DeviceAddress, std::shared_ptr<DevicePhysical>> mapped_;
  const std::unique_ptr<Engine> engine_;  // before memory_ in destruction
  CodeImageCache images_;
  const std::uint32_t compute_capability_;
  Mutex digest_mu_;  // one call of Digest at a time uses the processors
};

}  // namespace

Result<std::unique_ptr<Device>> NewSimDevice(const SimOptions& options) {
  if (options.compute_capability < 50 || options.compute_capability > 129) {
    return Invalid("simulated device: compute capability " +
                   std::to_string(options.compute_capability) +
                   "; write 90 for 9.0");
  }
  POS_ASSIGN_OR_RETURN(
      std::unique_ptr<SimMemory> memory,
      SimMemory::Create(options.arena_base, options.arena_bytes,
                        options.memory_bytes));
  EngineOptions engine_options;
  engine_options.compute_threads = options.compute_threads;
  engine_options.copy_engines = options.copy_engines;
  engine_options.copy_bytes_per_second = options.copy_bytes_per_second;
  engine_options.new_worker = NewPtxWorker;
  POS_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine,
                       Engine::Create(std::move(engine_options), memory.get()));
  return std::unique_ptr<Device>(std::make_unique<SimDevice>(
      options, std::move(memory), std::move(engine)));
}

DeviceInfo SimDeviceInfo(const SimOptions& options) {
  return MakeDeviceInfo(options);
}

}  // namespace pos::sim
