// Copies of rectangles between linear memory: row by row on one stream. Arrays
// are not served.
#include <limits>

#include "remoting/shim/copy.h"
#include "remoting/shim/driver_state.h"
#include "remoting/shim/output.h"
#include "remoting/shim/unsupported.h"

namespace pos::shim {
namespace {

// One side of a copy.
struct Side {
  std::uint64_t first = 0;  // address of the first row
  std::uint64_t pitch = 0;
};

CUresult SideOf(CUmemorytype type, const void* host, CUdeviceptr device,
                std::size_t x_bytes, std::size_t y, std::size_t pitch,
                const CUDA_MEMCPY2D& copy, Side* side) {
  std::uint64_t base = device;
  switch (type) {
    case CU_MEMORYTYPE_HOST:
      base = reinterpret_cast<std::uint64_t>(host);
      break;
    case CU_MEMORYTYPE_DEVICE:
    case CU_MEMORYTYPE_UNIFIED:
      break;
    case CU_MEMORYTYPE_ARRAY:
      return static_cast<CUresult>(RefuseFunction("cuMemcpy2D of an array"));
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  constexpr std::uint64_t kLimit = std::uint64_t{1} << 46;
  if (copy.WidthInBytes > kLimit || copy.Height > kLimit || x_bytes > kLimit ||
      y > kLimit || pitch > kLimit) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const bool one_row = copy.Height == 1 && y == 0;
  if (!one_row && pitch < x_bytes + copy.WidthInBytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (pitch != 0 && copy.Height + y > kLimit / pitch) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (base == 0) return CUDA_ERROR_INVALID_VALUE;
  side->first = base + y * pitch + x_bytes;
  side->pitch = pitch;
  // All of it, before anything is copied.
  const std::uint64_t extent = (copy.Height - 1) * pitch + copy.WidthInBytes;
  if (Classify(side->first) != Where::kPageable &&
      !Driver::Get().ranges.Holds(side->first, extent)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

CUresult Copy2D(const CUDA_MEMCPY2D* copy, CUstream handle, bool per_thread,
                bool wait) {
  const OutputFlush flush(wait);
  Context* context = nullptr;
  std::uint64_t stream = 0;
  CUresult result =
      Driver::Get().Resolve(handle, per_thread, &context, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (copy == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (copy->WidthInBytes == 0 || copy->Height == 0) return CUDA_SUCCESS;
  Side from;
  Side to;
  result = SideOf(copy->srcMemoryType, copy->srcHost, copy->srcDevice,
                  copy->srcXInBytes, copy->srcY, copy->srcPitch, *copy, &from);
  if (result != CUDA_SUCCESS) return result;
  result = SideOf(copy->dstMemoryType, copy->dstHost, copy->dstDevice,
                  copy->dstXInBytes, copy->dstY, copy->dstPitch, *copy, &to);
  if (result != CUDA_SUCCESS) return result;
  result = WaitForText(*context, stream, wait);
  if (result != CUDA_SUCCESS) return result;
  std::uint64_t bytes = copy->WidthInBytes;
  std::uint64_t rows = copy->Height;
  if (from.pitch == bytes && to.pitch == bytes) {
    bytes *= rows;
    rows = 1;
  }
  for (std::uint64_t row = 0; row < rows; ++row) {
    // The stream keeps the order: only the last one has to be waited for.
    result = CopyBytes(stream, to.first + row * to.pitch,
                       from.first + row * from.pitch, bytes,
                       wait && row + 1 == rows);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace pos::shim

using pos::shim::Copy2D;

CUresult CUDAAPI cuMemcpy2D_v2(const CUDA_MEMCPY2D* copy) {
  return Copy2D(copy, nullptr, false, true);
}
CUresult CUDAAPI cuMemcpy2D_v2_ptds(const CUDA_MEMCPY2D* copy) {
  return Copy2D(copy, nullptr, true, true);
}
CUresult CUDAAPI cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* copy) {
  return Copy2D(copy, nullptr, false, true);
}
CUresult CUDAAPI cuMemcpy2DUnaligned_v2_ptds(const CUDA_MEMCPY2D* copy) {
  return Copy2D(copy, nullptr, true, true);
}
CUresult CUDAAPI cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* copy,
                                    CUstream stream) {
  return Copy2D(copy, stream, false, false);
}
CUresult CUDAAPI cuMemcpy2DAsync_v2_ptsz(const CUDA_MEMCPY2D* copy,
                                         CUstream stream) {
  return Copy2D(copy, stream, true, false);
}
