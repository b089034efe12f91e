// What a program of the driver API is told, and when: the codes that CUDA gives
// for mistakes at the call, and for faults of execution afterwards.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/remoting/shim/client_check.h"

namespace pos::client {

const char kKernels[] = R"(
.version 8.0
.target sm_90
.address_size 64
.visible .entry store(.param .u64 address, .param .u32 value) {
  .reg .u64 %a;
  .reg .u32 %v;
  ld.param.u64 %a, [address];
  ld.param.u32 %v, [value];
  st.global.u32 [%a], %v;
  ret;
}
.visible .entry small(.param .u64 address) .maxntid 64, 1, 1 {
  ret;
}
.visible .entry trap_() {
  trap;
  ret;
}
.visible .entry wait(.param .u64 address) {
  .reg .u64 %a;
  .reg .u32 %v;
  .reg .pred %p;
  ld.param.u64 %a, [address];
again:
  ld.volatile.global.u32 %v, [%a];
  setp.eq.u32 %p, %v, 0;
  @%p bra again;
  ret;
}
)";

Program Program::Start() {
  Program p;
  OK(cuInit(0));
  OK(cuDevicePrimaryCtxRetain(&p.context, 0));
  OK(cuCtxSetCurrent(p.context));
  OK(cuModuleLoadData(&p.module, kKernels));
  OK(cuModuleGetFunction(&p.store, p.module, "store"));
  OK(cuModuleGetFunction(&p.small, p.module, "small"));
  OK(cuModuleGetFunction(&p.trap, p.module, "trap_"));
  OK(cuModuleGetFunction(&p.wait, p.module, "wait"));
  return p;
}

void Program::Store(CUdeviceptr address, unsigned value) const {
  void* params[] = {&address, &value};
  OK(cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr));
}

void ErrorsAtTheCall() {
  const Program p = Program::Start();
  CUdevice device = 0;
  WANT(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&device, 7));
  WANT(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&device, -1));
  char name[64];
  WANT(CUDA_ERROR_INVALID_DEVICE, cuDeviceGetName(name, sizeof(name), 7));
  CUcontext context = nullptr;
  WANT(CUDA_ERROR_INVALID_DEVICE, cuDevicePrimaryCtxRetain(&context, 7));
  CUfunction function = nullptr;
  WANT(CUDA_ERROR_NOT_FOUND,
       cuModuleGetFunction(&function, p.module, "absent"));
  TRUE(function == nullptr);
  CUmodule module = nullptr;
  WANT(CUDA_ERROR_INVALID_PTX,
       cuModuleLoadData(&module, ".version 8.0\n.target sm_90\nnonsense"));

  CUdeviceptr block = 0;
  OK(cuMemAlloc(&block, 1000));
  std::vector<char> host(2000);
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemAlloc(&block, 0));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD(block, host.data(), 2000));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(host.data(), block + 999, 2));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD(0x1000, host.data(), 8));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemsetD8(block + 990, 1, 11));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemsetD32(block + 2, 1, 4));
  OK(cuMemsetD8(block + 990, 1, 10));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemFree(block + 16));
  OK(cuMemFree(block));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemFree(block));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(host.data(), block, 1));
  void* pinned = nullptr;
  OK(cuMemHostAlloc(&pinned, 4096, 0));
  std::memset(pinned, 3, 4096);
  OK(cuMemFreeHost(pinned));
  WANT(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost(pinned));
  // Nothing of that did harm.
  OK(cuCtxSynchronize());
}

void OutOfMemory() {
  const Program p = Program::Start();
  std::size_t free_bytes = 0;
  std::size_t total = 0;
  OK(cuMemGetInfo(&free_bytes, &total));
  CUdeviceptr huge = 0;
  WANT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&huge, std::size_t{1} << 50));
  WANT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&huge, total + 1));
  // To the brim, and back.
  for (int round = 0; round < 3; ++round) {
    std::vector<CUdeviceptr> blocks;
    CUresult result = CUDA_SUCCESS;
    while (result == CUDA_SUCCESS && blocks.size() < 1000) {
      CUdeviceptr block = 0;
      result = cuMemAlloc(&block, 16 << 20);
      if (result == CUDA_SUCCESS) blocks.push_back(block);
    }
    WANT(CUDA_ERROR_OUT_OF_MEMORY, result);
    TRUE(blocks.size() > 4);
    OK(cuCtxSynchronize());
    p.Store(blocks.back(), 5);
    unsigned value = 0;
    OK(cuMemcpyDtoH(&value, blocks.back(), sizeof(value)));
    WANT(5, value);
    for (const CUdeviceptr block : blocks) OK(cuMemFree(block));
  }
}

void LaunchLimits() {
  const Program p = Program::Start();
  CUdeviceptr block = 0;
  OK(cuMemAlloc(&block, 4096));
  unsigned value = 1;
  void* params[] = {&block, &value};
  const auto launch = [&](CUfunction f, unsigned grid_y, unsigned threads,
                          unsigned shared, void** given) {
    return cuLaunchKernel(f, 1, grid_y, 1, threads, 1, 1, shared, nullptr,
                          given, nullptr);
  };
  WANT(CUDA_ERROR_INVALID_VALUE, launch(p.store, 0, 1, 0, params));
  WANT(CUDA_ERROR_INVALID_VALUE, launch(p.store, 1, 0, 0, params));
  WANT(CUDA_ERROR_INVALID_VALUE, launch(p.store, 65536, 1, 0, params));
  WANT(CUDA_ERROR_INVALID_VALUE, launch(p.store, 1, 1025, 0, params));
  WANT(CUDA_ERROR_INVALID_VALUE, launch(p.store, 1, 1, 49153, params));
  WANT(CUDA_ERROR_INVALID_VALUE, launch(p.store, 1, 1, 0, nullptr));
  WANT(CUDA_ERROR_INVALID_HANDLE, launch(nullptr, 1, 1, 0, params));
  // The kernel was built for 64 threads.
  OK(launch(p.small, 1, 64, 0, params));
  const CUresult wide = launch(p.small, 1, 65, 0, params);
  TRUE(wide == CUDA_ERROR_INVALID_VALUE ||
       wide == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
  // More dynamic shared memory is to be asked for.
  OK(cuFuncSetAttribute(
      p.store, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 65536));
  OK(launch(p.store, 1, 1, 65536, params));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuFuncSetAttribute(
           p.store, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1 << 24));
  OK(cuCtxSynchronize());
}

// When a copy to the device has returned, the bytes are there, also for streams
// that do not wait for the default one. Here that is held up by a kernel.
void SynchronousCopies() {
  const Program p = Program::Start();
  CUstream stream = nullptr;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CUdeviceptr flag = 0;
  CUdeviceptr block = 0;
  std::vector<std::uint8_t> out(1 << 20, 7);
  std::vector<std::uint8_t> in(out.size());
  OK(cuMemAlloc(&flag, 4));
  OK(cuMemAlloc(&block, out.size()));
  OK(cuMemsetD32(flag, 0, 1));
  OK(cuMemsetD8(block, 1, out.size()));
  OK(cuCtxSynchronize());
  CUcontext context = nullptr;
  OK(cuCtxGetCurrent(&context));
  void* params[] = {&flag};
  OK(cuLaunchKernel(p.wait, 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr));
  std::thread setter([context, flag] {
    OK(cuCtxSetCurrent(context));
    CUstream other = nullptr;
    OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    // So long that a copy which does not wait has returned.
    for (int i = 0; i < 20'000; ++i) OK(cuStreamQuery(other));
    OK(cuMemsetD32Async(flag, 1, 1, other));
    OK(cuStreamSynchronize(other));
  });
  OK(cuMemcpyHtoD(block, out.data(), out.size()));
  OK(cuMemcpyDtoHAsync(in.data(), block, in.size(), stream));
  OK(cuStreamSynchronize(stream));
  setter.join();
  if (in != out) {
    std::printf("another stream sees old bytes\n");
    std::exit(1);
  }
}

void Handles() {
  const Program p = Program::Start();
  CUstream stream = nullptr;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CUevent start = nullptr;
  CUevent end = nullptr;
  OK(cuEventCreate(&start, 0));
  OK(cuEventCreate(&end, 0));
  float ms = 0;
  WANT(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&ms, start, end));
  OK(cuEventQuery(start));
  // A kernel that runs until it is told.
  CUdeviceptr flag = 0;
  OK(cuMemAlloc(&flag, 4));
  OK(cuMemsetD32(flag, 0, 1));
  void* params[] = {&flag};
  OK(cuEventRecord(start, stream));
  OK(cuLaunchKernel(p.wait, 1, 1, 1, 1, 1, 1, 0, stream, params, nullptr));
  OK(cuEventRecord(end, stream));
  WANT(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
  WANT(CUDA_ERROR_NOT_READY, cuEventQuery(end));
  WANT(CUDA_ERROR_NOT_READY, cuEventElapsedTime(&ms, start, end));
  CUstream other = nullptr;
  OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
  OK(cuMemsetD32Async(flag, 1, 1, other));
  OK(cuStreamSynchronize(stream));
  OK(cuStreamQuery(stream));
  OK(cuEventElapsedTime(&ms, start, end));
  TRUE(ms > 0);
  // Used after their end.
  OK(cuStreamDestroy(stream));
  WANT(CUDA_ERROR_INVALID_HANDLE, cuStreamDestroy(stream));
  WANT(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(stream));
  WANT(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(end, stream));
  OK(cuEventDestroy(end));
  WANT(CUDA_ERROR_INVALID_HANDLE, cuEventDestroy(end));
  WANT(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(end, nullptr));
  OK(cuModuleUnload(p.module));
  WANT(CUDA_ERROR_INVALID_HANDLE, cuModuleUnload(p.module));
  // Without a context.
  OK(cuCtxSetCurrent(nullptr));
  CUdeviceptr block = 0;
  WANT(CUDA_ERROR_INVALID_CONTEXT, cuMemAlloc(&block, 16));
  WANT(CUDA_ERROR_INVALID_CONTEXT, cuCtxSynchronize());
  WANT(CUDA_ERROR_INVALID_CONTEXT,
       cuCtxSetCurrent(reinterpret_cast<CUcontext>(0x1234)));
}

namespace {

// The launch was fine; everything that follows in the context is `code`, until
// it is reset.
void ExpectSticky(const Program& p, CUdeviceptr block, int code) {
  for (int round = 0; round < 2; ++round) WANT(code, cuCtxSynchronize());
  CUdeviceptr more = 0;
  unsigned value = 0;
  WANT(code, cuMemAlloc(&more, 16));
  WANT(code, cuMemcpyDtoH(&value, block, 4));
  WANT(code, cuMemcpyHtoDAsync(block, &value, 4, nullptr));
  WANT(code, cuMemsetD8(block, 0, 4));
  WANT(code, cuMemFree(block));
  WANT(code, cuStreamQuery(nullptr));
  CUstream stream = nullptr;
  WANT(code, cuStreamCreate(&stream, 0));
  CUevent event = nullptr;
  WANT(code, cuEventCreate(&event, 0));
  void* params[] = {&block, &value};
  WANT(code,
       cuLaunchKernel(p.store, 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr));
  CUmodule module = nullptr;
  WANT(code, cuModuleLoadData(&module, kKernels));
  // What does not touch the context still works.
  int count = 0;
  OK(cuDeviceGetCount(&count));
  WANT(1, count);
  CUcontext current = nullptr;
  OK(cuCtxGetCurrent(&current));
  TRUE(current == p.context);

  OK(cuDevicePrimaryCtxReset(0));
  const Program again = Program::Start();
  CUdeviceptr fresh = 0;
  OK(cuMemAlloc(&fresh, 16));
  again.Store(fresh, 77);
  OK(cuMemcpyDtoH(&value, fresh, 4));
  WANT(77, value);
}

}  // namespace

void IllegalAddress() {
  const Program p = Program::Start();
  CUdeviceptr block = 0;
  OK(cuMemAlloc(&block, 1024));
  p.Store(block + (std::size_t{1} << 30), 1);
  ExpectSticky(p, block, CUDA_ERROR_ILLEGAL_ADDRESS);
}

void MisalignedAddress() {
  const Program p = Program::Start();
  CUdeviceptr block = 0;
  OK(cuMemAlloc(&block, 1024));
  p.Store(block + 2, 1);
  ExpectSticky(p, block, CUDA_ERROR_MISALIGNED_ADDRESS);
}

void Trap() {
  const Program p = Program::Start();
  CUdeviceptr block = 0;
  OK(cuMemAlloc(&block, 1024));
  OK(cuLaunchKernel(p.trap, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
  ExpectSticky(p, block, CUDA_ERROR_LAUNCH_FAILED);
}

// Destroying the context that has the fault rids the process of it.
void FaultBesideAnotherContext() {
  const Program p = Program::Start();
  CUdeviceptr kept = 0;
  OK(cuMemAlloc(&kept, 16));
  p.Store(kept, 9);
  OK(cuCtxSynchronize());
  CUcontext doomed = nullptr;
  OK(cuCtxCreate(&doomed, nullptr, 0, 0));
  CUmodule module = nullptr;
  OK(cuModuleLoadData(&module, kKernels));
  CUfunction trap = nullptr;
  OK(cuModuleGetFunction(&trap, module, "trap_"));
  OK(cuLaunchKernel(trap, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
  WANT(CUDA_ERROR_LAUNCH_FAILED, cuCtxSynchronize());
  OK(cuCtxDestroy(doomed));
  OK(cuCtxSetCurrent(p.context));
  unsigned value = 0;
  OK(cuMemcpyDtoH(&value, kept, 4));
  WANT(9, value);
}

}  // namespace pos::client
