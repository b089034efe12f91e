// The driver API alone: PTX text, modules, contexts, events, memory functions.
#include <cuda.h>

#include <vector>

#include "check.h"

#define DRIVER(call)                                   \
  do {                                                 \
    const CUresult check_r = (call);                   \
    if (check_r != CUDA_SUCCESS) {                     \
      FAIL("%s:%d: %s: %d", __FILE__, __LINE__, #call, \
           static_cast<int>(check_r));                 \
    }                                                  \
  } while (0)

const char kPtx[] = R"(
.version 7.0
.target sm_75
.address_size 64

.visible .global .align 4 .u32 calls = 3;
.visible .const .align 4 .u32 offset;

.visible .entry saxpy(.param .u64 x, .param .u64 y, .param .u32 n,
                      .param .u32 a)
{
  .reg .pred %p<3>;
  .reg .b32 %r<12>;
  .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [x];
  ld.param.u64 %rd2, [y];
  ld.param.u32 %r1, [n];
  ld.param.u32 %r2, [a];
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %tid.x;
  mad.lo.u32 %r6, %r3, %r4, %r5;
  setp.ge.u32 %p1, %r6, %r1;
  @%p1 bra done;
  mul.wide.u32 %rd3, %r6, 4;
  cvta.to.global.u64 %rd4, %rd1;
  cvta.to.global.u64 %rd5, %rd2;
  add.u64 %rd4, %rd4, %rd3;
  add.u64 %rd5, %rd5, %rd3;
  ld.global.u32 %r7, [%rd4];
  ld.global.u32 %r8, [%rd5];
  mad.lo.u32 %r9, %r7, %r2, %r8;
  ld.const.u32 %r10, [offset];
  add.u32 %r9, %r9, %r10;
  st.global.u32 [%rd5], %r9;
  setp.ne.u32 %p2, %r6, 0;
  @%p2 bra done;
  atom.global.add.u32 %r11, [calls], 1;
done:
  ret;
}
)";

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  DRIVER(cuInit(0));
  CUdevice device;
  CUcontext context;
  char name[100];
  DRIVER(cuDeviceGet(&device, 0));
  DRIVER(cuDeviceGetName(name, sizeof(name), device));
  DRIVER(cuDevicePrimaryCtxRetain(&context, device));
  DRIVER(cuCtxSetCurrent(context));
  CUmodule module;
  CUfunction saxpy;
  CUdeviceptr x, y, calls, offset;
  size_t bytes;
  EXPECT(cuModuleLoadData(&module, "not PTX at all") != CUDA_SUCCESS);
  DRIVER(cuModuleLoadData(&module, kPtx));
  DRIVER(cuModuleGetFunction(&saxpy, module, "saxpy"));
  EXPECT(cuModuleGetFunction(&saxpy, module, "none") == CUDA_ERROR_NOT_FOUND);
  DRIVER(cuModuleGetFunction(&saxpy, module, "saxpy"));
  DRIVER(cuModuleGetGlobal(&calls, &bytes, module, "calls"));
  EXPECT(bytes == 4);
  DRIVER(cuModuleGetGlobal(&offset, nullptr, module, "offset"));
  unsigned n = 7001;
  std::vector<unsigned> hx(n), want(n), got(n);
  DRIVER(cuMemAlloc(&x, n * 4));
  DRIVER(cuMemAlloc(&y, n * 4));
  for (unsigned i = 0; i < n; ++i) hx[i] = i * 2654435761u;
  DRIVER(cuMemcpyHtoD(x, hx.data(), n * 4));
  DRIVER(cuMemsetD32(y, 12, n));
  for (unsigned& value : want) value = 12;
  CUstream stream;
  CUevent start, stop;
  DRIVER(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  DRIVER(cuEventCreate(&start, CU_EVENT_DEFAULT));
  DRIVER(cuEventCreate(&stop, CU_EVENT_DEFAULT));
  DRIVER(cuCtxSynchronize());
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    unsigned a = it + 2, add = it * 5;
    // In the kernel's stream: a copy from pageable memory may return before the
    // device has it, and a non-blocking stream does not wait for the default
    // one.
    DRIVER(cuMemcpyHtoDAsync(offset, &add, 4, stream));
    void* params[] = {&x, &y, &n, &a};
    DRIVER(cuEventRecord(start, stream));
    DRIVER(cuLaunchKernel(saxpy, (n + 127) / 128, 1, 1, 128, 1, 1, 0, stream,
                          params, nullptr));
    DRIVER(cuEventRecord(stop, stream));
    DRIVER(cuMemcpyDtoHAsync(got.data(), y, n * 4, stream));
    DRIVER(cuStreamSynchronize(stream));
    for (unsigned i = 0; i < n; ++i) want[i] += hx[i] * a + add;
    EXPECT(got == want);
    float ms;
    DRIVER(cuEventElapsedTime(&ms, start, stop));
    unsigned count;
    DRIVER(cuMemcpyDtoH(&count, calls, 4));
    EXPECT(ms >= 0 && count == 3u + it + 1);
    digest.Add(got.data(), n * 4);
    Progress(it, iterations);
  }
  DRIVER(cuModuleUnload(module));
  DRIVER(cuMemFree(x));
  DRIVER(cuMemFree(y));
  DRIVER(cuDevicePrimaryCtxRelease(device));
  return digest.Pass();
}
