// Memory: mapping, freeing, copies, fills; who is asked before.
#include <cuda.h>

#include <optional>

#include "pos/base/log.h"
#include "pos/cuda_impl/worker/cuda_executor.h"

namespace pos::cuda {
namespace {

DeviceStream* StreamOf(const ApiContext* context) {
  return static_cast<StreamObject*>(context->handles[0]->object.get())->stream;
}

DeviceAddress AddressOf(const void* pointer) {
  return reinterpret_cast<DeviceAddress>(pointer);
}

}  // namespace

bool CudaExecutor::MayGo(const ApiContext& context) {
  const CallAccess* const access = accesses_.Find(context);
  return access == nullptr ||
         watch_->BeforeCall(*access) == MemoryWatch::Verdict::kGo;
}

void CudaExecutor::ReleaseRange(std::uint64_t address) {
  const WorkerBlock* const block = memory_.Find(address);
  if (block == nullptr) return;
  BlockAllocator& variables =
      variables_[static_cast<std::size_t>(block->device)];
  bool is_variable = block->foreign;
  const int device = block->device;
  std::optional<BlockAllocator::Backing> backing;
  if (!is_variable) backing = variables.Free(address, &is_variable);
  memory_.Unmap(address);
  if (is_variable && backing) state_->ledger->GiveBack(device, backing->bytes);
  notices_->Post({.what = is_variable ? kNoticeVariableGone : kNoticeRangeFree,
                  .a = address});
}

void CudaExecutor::ReleaseHost(std::uint64_t address) {
  const auto it = host_blocks_.find(address);
  for (Device* device : state_->devices) {
    device->UnmapHost(address, it->second).IgnoreError();
  }
  host_->Unmap(address, it->second);
  host_blocks_.erase(it);
  notices_->Post({.what = kNoticeHostFree, .a = address});
}

void CudaExecutor::DropHostMemory() {
  for (const auto& [address, bytes] : registered_) {
    for (Device* device : state_->devices) {
      device->UnmapHost(address, bytes).IgnoreError();
    }
    host_->UnmapFile(address, bytes);
  }
  for (const auto& [address, bytes] : host_blocks_) {
    for (Device* device : state_->devices) {
      device->UnmapHost(address, bytes).IgnoreError();
    }
    host_->Unmap(address, bytes);
  }
}

// The parser has answered; memory was granted before. A device that cannot map
// it nevertheless breaks that promise, and the program cannot be told any more
// at the call: its context is poisoned.
ApiExecutor::Outcome CudaExecutor::ExecMemAlloc(ApiContext* context,
                                                const MemAllocArgs&) {
  const Handle* const owner = context->handles[0];
  WorkerBlock block;
  block.address = context->scratch[0];
  block.bytes = context->scratch[1];
  block.backing_address = context->scratch[2];
  block.backing_bytes = context->scratch[3];
  block.device = static_cast<std::int32_t>(owner->parser_word);
  block.context = owner->id;
  const Status status = memory_.Map(block);
  if (!status.ok()) {
    POS_LOG(kError, "granted memory cannot be mapped",
            {{"status", status.ToString()}});
    broken_ = owner->id;
    CheckFaults();
  }
  return Outcome::kDone;
}

ApiExecutor::Outcome CudaExecutor::ExecMemAllocAsync(ApiContext* context,
                                                     const MemAllocAsyncArgs&) {
  return ExecMemAlloc(context, {});
}

ApiExecutor::Outcome CudaExecutor::ExecMemFree(ApiContext* context,
                                               const MemFreeArgs& args) {
  memory_.MarkReleasing(args.address);
  const WorkerBlock* const block = memory_.Find(args.address);
  return WhenIdle(context, block == nullptr ? 0 : block->device);
}

// Stream-ordered: only what this stream has been given so far can use it.
ApiExecutor::Outcome CudaExecutor::ExecMemFreeAsync(
    ApiContext* context, const MemFreeAsyncArgs& args) {
  memory_.MarkReleasing(args.address);
  context->scratch[3] = 1;
  StreamOf(context)->Notify(TokenOf(context));
  return Outcome::kInFlight;
}

ApiExecutor::Outcome CudaExecutor::ExecMemGetInfo(ApiContext* context,
                                                  const MemGetInfoArgs&) {
  return Fail(context, CUDA_ERROR_NOT_SUPPORTED);  // the parser answers it
}

ApiExecutor::Outcome CudaExecutor::ExecHostAlloc(ApiContext* context,
                                                 const HostAllocArgs&) {
  const auto& out = context->Out<HostAllocOut>();
  Status status = host_->Map(out.address, out.mapped_bytes);
  for (Device* device : state_->devices) {
    if (status.ok()) status = device->MapHost(out.address, out.mapped_bytes);
  }
  if (!status.ok()) {
    POS_LOG(kWarning, "pinned memory refused", {{"status", status.ToString()}});
    host_->Unmap(out.address, out.mapped_bytes);
    notices_->Post({.what = kNoticeHostFree, .a = out.address});
    return Fail(context, CUDA_ERROR_OUT_OF_MEMORY);
  }
  host_blocks_[out.address] = out.mapped_bytes;
  return Outcome::kDone;
}

ApiExecutor::Outcome CudaExecutor::ExecHostFree(ApiContext* context,
                                                const HostFreeArgs& args) {
  // The parser answered for an allocation that the device refused afterwards;
  // its range may be another's by the time the device is idle.
  if (!host_blocks_.contains(args.address)) {
    return Fail(context, CUDA_ERROR_INVALID_VALUE);
  }
  return WhenIdle(context, -1);
}

ApiExecutor::Outcome CudaExecutor::ExecHostRegister(
    ApiContext* context, const HostRegisterArgs& args) {
  Status status =
      host_->MapFile(args.address, args.bytes, args.file, args.offset);
  const bool mapped = status.ok();
  for (Device* device : state_->devices) {
    if (status.ok()) status = device->MapHost(args.address, args.bytes);
  }
  if (!status.ok()) {
    POS_LOG(kWarning, "host memory is not registered",
            {{"status", status.ToString()}});
    if (mapped) {
      for (Device* device : state_->devices) {
        device->UnmapHost(args.address, args.bytes).IgnoreError();
      }
      host_->UnmapFile(args.address, args.bytes);
    }
    notices_->Post({.what = kNoticeMappingGone, .a = args.address});
    return Fail(context, CUDA_ERROR_OUT_OF_MEMORY);
  }
  registered_[args.address] = args.bytes;
  return Outcome::kDone;
}

// As CUDA has it, the program sees to it that nothing uses it any more; kernels
// that do nevertheless fault.
ApiExecutor::Outcome CudaExecutor::ExecHostUnregister(
    ApiContext* context, const HostUnregisterArgs& args) {
  const auto it = registered_.find(args.address);
  if (it == registered_.end()) {
    return Fail(context, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
  }
  for (Device* device : state_->devices) {
    device->UnmapHost(args.address, it->second).IgnoreError();
  }
  host_->UnmapFile(args.address, it->second);
  registered_.erase(it);
  notices_->Post({.what = kNoticeMappingGone, .a = args.address});
  return Outcome::kDone;
}

ApiExecutor::Outcome CudaExecutor::ExecCopyToDevice(
    ApiContext* context, const CopyToDeviceArgs& args) {
  const std::span<const std::byte> in = port_->BulkIn(*context);
  StreamOf(context)->Copy(args.dst, AddressOf(in.data()), args.bytes,
                          TokenOf(context));
  return Outcome::kInFlight;
}

ApiExecutor::Outcome CudaExecutor::ExecCopyFromDevice(
    ApiContext* context, const CopyFromDeviceArgs& args) {
  const std::span<std::byte> out = port_->BulkOut(*context);
  const DeviceAddress to =
      out.empty() ? AddressOf(context->reply.data()) : AddressOf(out.data());
  StreamOf(context)->Copy(to, args.src, args.bytes, TokenOf(context));
  return Outcome::kInFlight;
}

ApiExecutor::Outcome CudaExecutor::ExecCopy(ApiContext* context,
                                            const CopyArgs& args) {
  StreamOf(context)->Copy(args.dst, args.src, args.bytes, TokenOf(context));
  return Outcome::kInFlight;
}

ApiExecutor::Outcome CudaExecutor::ExecFill(ApiContext* context,
                                            const FillArgs& args) {
  StreamOf(context)->Fill(args.dst, args.value, args.width, args.count,
                          args.rows, args.pitch, TokenOf(context));
  return Outcome::kInFlight;
}

}  // namespace pos::cuda
