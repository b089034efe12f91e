// Limits of contexts: which may be set when, and what becomes of them. What
// kernels print.
#include <cuda.h>

#include <algorithm>

#include "pos/cuda_impl/worker/cuda_executor.h"
#include "pos/cuda_impl/worker/variable_placer.h"

namespace pos::cuda {
namespace {

// The least and the most that the printf FIFO can be.
constexpr std::uint64_t kLeastFifoBytes = 1024;
constexpr std::uint64_t kMostFifoBytes = OutputFifo::kTotalBytes;

}  // namespace

DeviceError CudaExecutor::SetHeapLimit(Handle* handle, std::uint64_t value,
                                       std::uint64_t* in_effect) {
  auto* const object = static_cast<ContextObject*>(handle->object.get());
  VariablePlacer placer(&variables_[static_cast<std::size_t>(object->device)],
                        &memory_, state_->ledger, object->device, handle->id,
                        nullptr);
  const DeviceError error = object->context->SetLimit(
      DeviceLimit::kHeapBytes, value, &placer, in_effect);
  if (placer.heap() == 0) return error;
  // No kernel has used the old one, so none runs in it.
  ReleaseRange(error == 0 ? object->heap : placer.heap());
  if (error == 0) {
    object->heap = placer.heap();
    object->heap_bytes = placer.heap_bytes();
  }
  return error;
}

DeviceError CudaExecutor::SetLimit(Handle* handle, const CtxSetLimitArgs& args,
                                   std::uint64_t* in_effect) {
  auto* const object = static_cast<ContextObject*>(handle->object.get());
  switch (args.limit) {
    case CU_LIMIT_STACK_SIZE:
      return object->context->SetLimit(DeviceLimit::kStackBytes, args.value,
                                       nullptr, in_effect);
    case CU_LIMIT_PRINTF_FIFO_SIZE:
      *in_effect = std::clamp(args.value, kLeastFifoBytes, kMostFifoBytes);
      if (const DeviceError error = object->context->SetLimit(
              DeviceLimit::kOutputBytes, *in_effect, nullptr, in_effect)) {
        return error;
      }
      output_.SetCapacity(handle->id, *in_effect);
      return 0;
    case CU_LIMIT_MALLOC_HEAP_SIZE:
      return SetHeapLimit(handle, args.value, in_effect);
    default:
      return CUDA_ERROR_UNSUPPORTED_LIMIT;
  }
}

ApiExecutor::Outcome CudaExecutor::ExecCtxSetLimit(
    ApiContext* context, const CtxSetLimitArgs& args) {
  Handle* const handle = context->handles[0];
  const auto* const object = static_cast<ContextObject*>(handle->object.get());
  // As CUDA: not once a kernel was launched that uses it.
  if ((args.limit == CU_LIMIT_PRINTF_FIFO_SIZE && object->output_used) ||
      (args.limit == CU_LIMIT_MALLOC_HEAP_SIZE && object->heap_used)) {
    return Fail(context, CUDA_ERROR_INVALID_VALUE);
  }
  std::uint64_t in_effect = 0;
  const DeviceError error = SetLimit(handle, args, &in_effect);
  if (error != 0) return Fail(context, error);
  context->Out<CtxSetLimitOut>().in_effect = in_effect;
  // Another property than the creation, whose key is 0.
  handle->recipe.Record(*context, static_cast<std::uint64_t>(args.limit) + 1,
                        {});
  return Outcome::kDone;
}

// Waits for nothing: the client asks after a call that did.
ApiExecutor::Outcome CudaExecutor::ExecDeviceOutput(ApiContext* context,
                                                    const DeviceOutputArgs&) {
  static_assert(
      sizeof(OutputPiece) == sizeof(OutputFifo::Piece) &&
      kStandardOutput == static_cast<std::uint32_t>(OutputKind::kPrinted) &&
      kStandardError == static_cast<std::uint32_t>(OutputKind::kFailed));
  context->reply_bulk_bytes = output_.Take(
      port_->BulkOut(*context), &context->Out<DeviceOutputOut>().left_bytes);
  return Outcome::kDone;
}

}  // namespace pos::cuda
