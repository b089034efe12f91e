// Memory without addresses: made, mapped, unmapped.
#include <cuda.h>

#include <memory>
#include <utility>
#include <vector>

#include "pos/base/log.h"
#include "pos/cuda_impl/worker/cuda_executor.h"

namespace pos::cuda {
namespace {

PhysicalObject* PhysicalOf(const Handle* handle) {
  return static_cast<PhysicalObject*>(handle->object.get());
}

}  // namespace

ApiExecutor::Outcome CudaExecutor::ExecAddressReserve(
    ApiContext* context, const AddressReserveArgs&) {
  return Fail(context, CUDA_ERROR_NOT_SUPPORTED);  // the parser answers it
}

ApiExecutor::Outcome CudaExecutor::ExecAddressFree(ApiContext* context,
                                                   const AddressFreeArgs&) {
  return Fail(context, CUDA_ERROR_NOT_SUPPORTED);  // the parser answers it
}

Status CudaExecutor::MakePhysical(Handle* handle,
                                  const PhysicalCreateArgs& args) {
  if (args.device < 0 ||
      static_cast<std::size_t>(args.device) >= state_->devices.size()) {
    return Corrupt("memory of an unknown device");
  }
  Device* const device = state_->devices[static_cast<std::size_t>(args.device)];
  POS_ASSIGN_OR_RETURN(std::shared_ptr<DevicePhysical> memory,
                       device->CreatePhysical(args.bytes));
  auto object = std::make_unique<PhysicalObject>();
  object->memory = std::make_shared<PhysicalMemory>(
      std::move(memory), args.device, state_->ledger);
  object->released = !handle->alive;
  handle->object = std::move(object);
  physicals_[handle->id] = handle;
  return {};
}

std::uint64_t CudaExecutor::TakenBytes(int device) const {
  std::uint64_t bytes =
      variables_[static_cast<std::size_t>(device)].backed_bytes();
  for (const auto& [id, handle] : physicals_) {
    const PhysicalMemory& memory = *PhysicalOf(handle)->memory;
    if (memory.device == device) bytes += memory.memory->bytes();
  }
  return bytes;
}

void CudaExecutor::DropPhysical(Handle* handle) {
  physicals_.erase(handle->id);
  Gone(handle);
}

ApiExecutor::Outcome CudaExecutor::ExecPhysicalCreate(
    ApiContext* context, const PhysicalCreateArgs& args) {
  Handle* const handle = context->handles[0];
  const Status status = MakePhysical(handle, args);
  if (!status.ok()) state_->ledger->GiveBack(args.device, args.bytes);
  return Created(context, handle, status, CUDA_ERROR_OUT_OF_MEMORY);
}

ApiExecutor::Outcome CudaExecutor::ExecPhysicalRelease(
    ApiContext* context, const PhysicalReleaseArgs&) {
  Handle* const handle = context->handles[0];
  PhysicalOf(handle)->released = true;
  if (!memory_.IsMapped(handle->id)) DropPhysical(handle);
  return Outcome::kDone;
}

ApiExecutor::Outcome CudaExecutor::ExecPhysicalMap(
    ApiContext* context, const PhysicalMapArgs& args) {
  const Handle* const handle = context->handles[0];
  const PhysicalObject* const object = PhysicalOf(handle);
  WorkerBlock block;
  block.address = args.address;
  block.bytes = args.bytes;
  block.backing_address = args.address;
  block.backing_bytes = args.bytes;
  block.device = static_cast<std::int32_t>(context->scratch[0]);
  block.physical = handle->id;
  block.memory = object->memory;
  block.accessible = false;
  if (args.bytes != object->memory->memory->bytes()) {
    notices_->Post({.what = kNoticeMappingGone, .a = args.address});
    return Fail(context, CUDA_ERROR_INVALID_VALUE);
  }
  const Status status = memory_.Map(block);
  if (!status.ok()) {
    POS_LOG(kWarning, "memory cannot be mapped",
            {{"status", status.ToString()}});
    memory_.Unmap(args.address);
    notices_->Post({.what = kNoticeMappingGone, .a = args.address});
    return Fail(context, CUDA_ERROR_OUT_OF_MEMORY);
  }
  return Outcome::kDone;
}

// As CUDA has it, nothing waits: work that still uses the range faults.
ApiExecutor::Outcome CudaExecutor::ExecPhysicalUnmap(
    ApiContext* context, const PhysicalUnmapArgs& args) {
  std::uint64_t at = args.address;
  while (at < args.address + args.bytes) {
    const WorkerBlock* const block = memory_.Find(at);
    if (block == nullptr || block->physical == 0) {
      return Fail(context, CUDA_ERROR_INVALID_VALUE);
    }
    const std::uint64_t next = at + block->bytes;
    Handle* const handle = physicals_.at(block->physical);
    memory_.Unmap(at);
    notices_->Post({.what = kNoticeMappingGone, .a = at});
    if (PhysicalOf(handle)->released && !memory_.IsMapped(handle->id)) {
      DropPhysical(handle);
    }
    at = next;
  }
  return Outcome::kDone;
}

ApiExecutor::Outcome CudaExecutor::ExecSetAccess(ApiContext* context,
                                                 const SetAccessArgs& args) {
  std::uint64_t at = args.address;
  while (at < args.address + args.bytes) {
    const WorkerBlock* const block = memory_.Find(at);
    if (block == nullptr) return Fail(context, CUDA_ERROR_INVALID_VALUE);
    const std::uint64_t next = at + block->bytes;
    memory_.SetAccessible(at, args.allowed != 0);
    at = next;
  }
  return Outcome::kDone;
}

std::shared_ptr<PhysicalMemory> CudaExecutor::FindPhysical(HandleId id) const {
  const auto it = physicals_.find(id);
  return it == physicals_.end() ? nullptr : PhysicalOf(it->second)->memory;
}

Status CudaExecutor::CheckSavable() const {
  if (!registered_.empty()) {
    return Incompatible(
        "the program has registered " +
        std::to_string(registered_.begin()->second) +
        " bytes of shared memory of its own (cuMemHostRegister), which an "
        "image does not hold");
  }
  for (const Handle* handle : contexts_) {
    const auto* object = static_cast<ContextObject*>(handle->object.get());
    if (!object->heap_used || object->heap != 0) continue;
    return Incompatible(
        "a kernel that may call malloc or free was launched on a device whose "
        "driver keeps the heap to itself: an image would not hold it");
  }
  for (const auto& [id, handle] : physicals_) {
    const PhysicalObject* const object = PhysicalOf(handle);
    if (!object->memory->touched || memory_.IsMapped(id)) continue;
    return Busy("the program holds " +
                    std::to_string(object->memory->memory->bytes()) +
                    " bytes of device memory (cuMemCreate) that it has used "
                    "and that are not mapped anywhere now",
                "try again at another instant");
  }
  return {};
}

}  // namespace pos::cuda
