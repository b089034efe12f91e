// Copies and fills. Each function comes once for the legacy default stream and
// once, with another suffix, for the per-thread one.
#include "remoting/shim/copy.h"
#include "remoting/shim/driver_state.h"
#include "remoting/shim/output.h"

namespace pos::shim {
namespace {

// Operands that must be memory of the device (or pinned): that the function's
// name says so is a check, too, and keeps a stray number from being taken for
// the program's own memory.
enum Needs : unsigned { kAnywhere = 0, kDeviceDst = 1, kDeviceSrc = 2 };

CUresult Copy(unsigned needs, CUdeviceptr dst, CUdeviceptr src,
              std::size_t bytes, CUstream handle, bool per_thread, bool wait) {
  const OutputFlush flush(wait);
  Context* context = nullptr;
  std::uint64_t stream = 0;
  CUresult result =
      Driver::Get().Resolve(handle, per_thread, &context, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (bytes != 0 &&
      (((needs & kDeviceDst) != 0 && Classify(dst) == Where::kPageable) ||
       ((needs & kDeviceSrc) != 0 && Classify(src) == Where::kPageable))) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  result = WaitForText(*context, stream, wait);
  if (result != CUDA_SUCCESS) return result;
  return CopyBytes(stream, dst, src, bytes, wait);
}

CUdeviceptr Address(const void* pointer) {
  return reinterpret_cast<CUdeviceptr>(pointer);
}

CUresult Fill(const FillShape& shape, CUstream handle, bool per_thread) {
  Context* context = nullptr;
  std::uint64_t stream = 0;
  const CUresult result =
      Driver::Get().Resolve(handle, per_thread, &context, &stream);
  if (result != CUDA_SUCCESS) return result;
  return FillBytes(stream, shape);
}

}  // namespace
}  // namespace pos::shim

using pos::shim::Address;
using pos::shim::Copy;
using pos::shim::Fill;
using pos::shim::kAnywhere;
using pos::shim::kDeviceDst;
using pos::shim::kDeviceSrc;

// sync: suffix of the synchronous functions (_ptds); async: of the others
// (_ptsz).
#define POS_COPY_CALLS_(v2sync, plainsync, v2async, async, own)                \
  CUresult CUDAAPI cuMemcpy##plainsync(CUdeviceptr dst, CUdeviceptr src,       \
                                       std::size_t bytes) {                    \
    return Copy(kAnywhere, dst, src, bytes, nullptr, own, true);               \
  }                                                                            \
  CUresult CUDAAPI cuMemcpyHtoD##v2sync(CUdeviceptr dst, const void* src,      \
                                        std::size_t bytes) {                   \
    return Copy(kDeviceDst, dst, Address(src), bytes, nullptr, own, true);     \
  }                                                                            \
  CUresult CUDAAPI cuMemcpyDtoH##v2sync(void* dst, CUdeviceptr src,            \
                                        std::size_t bytes) {                   \
    return Copy(kDeviceSrc, Address(dst), src, bytes, nullptr, own, true);     \
  }                                                                            \
  CUresult CUDAAPI cuMemcpyDtoD##v2sync(CUdeviceptr dst, CUdeviceptr src,      \
                                        std::size_t bytes) {                   \
    return Copy(kDeviceDst | kDeviceSrc, dst, src, bytes, nullptr, own, true); \
  }                                                                            \
  CUresult CUDAAPI cuMemcpyAsync##async(CUdeviceptr dst, CUdeviceptr src,      \
                                        std::size_t bytes, CUstream stream) {  \
    return Copy(kAnywhere, dst, src, bytes, stream, own, false);               \
  }                                                                            \
  CUresult CUDAAPI cuMemcpyHtoDAsync##v2async(                                 \
      CUdeviceptr dst, const void* src, std::size_t bytes, CUstream stream) {  \
    return Copy(kDeviceDst, dst, Address(src), bytes, stream, own, false);     \
  }                                                                            \
  CUresult CUDAAPI cuMemcpyDtoHAsync##v2async(                                 \
      void* dst, CUdeviceptr src, std::size_t bytes, CUstream stream) {        \
    return Copy(kDeviceSrc, Address(dst), src, bytes, stream, own, false);     \
  }                                                                            \
  CUresult CUDAAPI cuMemcpyDtoDAsync##v2async(                                 \
      CUdeviceptr dst, CUdeviceptr src, std::size_t bytes, CUstream stream) {  \
    return Copy(kDeviceDst | kDeviceSrc, dst, src, bytes, stream, own, false); \
  }
POS_COPY_CALLS_(_v2, , _v2, , false)
POS_COPY_CALLS_(_v2_ptds, _ptds, _v2_ptsz, _ptsz, true)
#undef POS_COPY_CALLS_

#define POS_FILL_CALLS_(bits, type, v2sync, async, own)                        \
  CUresult CUDAAPI cuMemsetD##bits##v2sync(CUdeviceptr dst, type value,        \
                                           std::size_t count) {                \
    return Fill({dst, value, (bits) / 8, count, 1, 0}, nullptr, own);          \
  }                                                                            \
  CUresult CUDAAPI cuMemsetD2D##bits##v2sync(                                  \
      CUdeviceptr dst, std::size_t pitch, type value, std::size_t width,       \
      std::size_t height) {                                                    \
    return Fill({dst, value, (bits) / 8, width, height, pitch}, nullptr, own); \
  }                                                                            \
  CUresult CUDAAPI cuMemsetD##bits##Async##async(                              \
      CUdeviceptr dst, type value, std::size_t count, CUstream stream) {       \
    return Fill({dst, value, (bits) / 8, count, 1, 0}, stream, own);           \
  }                                                                            \
  CUresult CUDAAPI cuMemsetD2D##bits##Async##async(                            \
      CUdeviceptr dst, std::size_t pitch, type value, std::size_t width,       \
      std::size_t height, CUstream stream) {                                   \
    return Fill({dst, value, (bits) / 8, width, height, pitch}, stream, own);  \
  }
POS_FILL_CALLS_(8, unsigned char, _v2, , false)
POS_FILL_CALLS_(16, unsigned short, _v2, , false)
POS_FILL_CALLS_(32, unsigned, _v2, , false)
POS_FILL_CALLS_(8, unsigned char, _v2_ptds, _ptsz, true)
POS_FILL_CALLS_(16, unsigned short, _v2_ptds, _ptsz, true)
POS_FILL_CALLS_(32, unsigned, _v2_ptds, _ptsz, true)
#undef POS_FILL_CALLS_
