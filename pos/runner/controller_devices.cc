// The session's devices.
#include <utility>

#include "pos/base/log.h"
#include "pos/cuda_impl/device_cuda/cuda_device.h"
#include "pos/cuda_impl/device_sim/sim_device.h"
#include "pos/runner/controller.h"

namespace pos {

Status Controller::OpenDevices(const runner::Configure& request,
                               runner::FromRunner* reply) {
  for (int i = 0; i < request.devices_size(); ++i) {
    runner::FromRunner opening;
    opening.mutable_opening()->set_ordinal(request.devices(i).ordinal());
    Send(opening);
    const Status status = OpenDevice(request.devices(i), i);
    if (status.ok()) continue;
    reply->add_failed_devices(request.devices(i).ordinal());
    return status;
  }
  return {};
}

Status Controller::OpenDevice(const runner::DeviceSpec& spec, int place) {
  if (spec.kind() == runner::DeviceSpec::CUDA) {
    cuda_device::CudaOptions cuda;
    cuda.driver_library = spec.driver_library();
    cuda.ordinal = spec.driver_ordinal();
    // The driver places variables itself: nothing is mapped in their part.
    cuda.arena_base = options_.layout.PartBase(place);
    cuda.arena_bytes = options_.layout.BlockBytes();
    POS_ASSIGN_OR_RETURN(std::unique_ptr<Device> device,
                         cuda_device::NewCudaDevice(cuda));
    devices_.push_back(std::move(device));
    return {};
  }
  sim::SimOptions sim;
  sim.ordinal = spec.ordinal();
  sim.memory_bytes = spec.memory_bytes();
  sim.copy_bytes_per_second = spec.copy_bytes_per_second();
  sim.compute_threads = spec.compute_threads();
  if (spec.compute_capability() != 0) {
    sim.compute_capability = spec.compute_capability();
  }
  sim.arena_base = options_.layout.PartBase(place);
  sim.arena_bytes = options_.layout.PartBytes();
  POS_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, sim::NewSimDevice(sim));
  devices_.push_back(std::move(device));
  return {};
}

// Simulated devices live in addresses that this process has reserved; a driver
// reserves its own, which must be free here, and where it grants none at the
// configured place, other places are tried.
Status Controller::OpenAt(const runner::Configure& request,
                          runner::FromRunner* reply) {
  int driven = 0;
  for (const runner::DeviceSpec& spec : request.devices()) {
    driven += spec.kind() == runner::DeviceSpec::CUDA ? 1 : 0;
  }
  if (driven == 0) {
    POS_ASSIGN_OR_RETURN(
        ReservedRange arena,
        ReservedRange::At(request.arena_base(), request.arena_bytes()));
    arena_ = std::make_unique<ReservedRange>(std::move(arena));
    return OpenDevices(request, reply);
  }
  if (driven != request.devices_size()) {
    return Incompatible("one session cannot have simulated and real devices");
  }
  Status first;
  for (const std::uint64_t base :
       {request.arena_base(), std::uint64_t{0x100000000000},
        std::uint64_t{0x400000000000}, std::uint64_t{0x500000000000}}) {
    options_.layout.arena_base = base;
    if (!options_.layout.Check().ok()) continue;
    reply->clear_failed_devices();
    const Status status = OpenDevices(request, reply);
    if (status.ok()) return status;
    devices_.clear();
    if (first.ok()) first = status;
    if (status.code() != Code::kIncompatible) break;
  }
  return first;
}

Status Controller::CheckDevices() const {
  for (const auto& device : devices_) {
    if (device->info().kind == "cuda") {
      POS_RETURN_IF_ERROR(cuda_device::CheckCudaDevice(*device));
    }
  }
  return {};
}

// A driver copies pinned memory without a detour. Where it refuses, copies take
// the detour.
void Controller::PinStaging() {
  const auto at =
      reinterpret_cast<std::uint64_t>(session_->ring()->staging_memory());
  for (const auto& device : devices_) {
    if (!device->PlacesVariables()) continue;
    const Status status = device->MapHost(at, options_.ring.staging_bytes);
    if (status.ok()) {
      pinned_.push_back(device.get());
    } else {
      POS_LOG(kInfo, "staging is not pinned", {{"why", status.message()}});
    }
  }
}

void Controller::UnpinStaging() {
  if (session_ == nullptr) return;
  const auto at =
      reinterpret_cast<std::uint64_t>(session_->ring()->staging_memory());
  for (Device* const device : pinned_) {
    device->UnmapHost(at, options_.ring.staging_bytes).IgnoreError();
  }
  pinned_.clear();
}

}  // namespace pos
