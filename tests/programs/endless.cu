// Kernels that never end, for tests of what ends them: the job's stop, the
// process's exit, cuCtxDestroy. Unlike the other programs it takes no iteration
// count.
//
// endless KERNEL wait      starts it, says "started" and waits for it
// endless KERNEL exit      starts it, says "started" and returns from main
// endless KERNEL destroy   destroys the context under it, three times, each
// time
//                          followed by a kernel in a context that works
#include <cuda.h>

#include <chrono>
#include <cstring>
#include <string>

#include "check.h"

#define DRIVER(call)                                   \
  do {                                                 \
    const CUresult check_r = (call);                   \
    if (check_r != CUDA_SUCCESS) {                     \
      FAIL("%s:%d: %s: %d", __FILE__, __LINE__, #call, \
           static_cast<int>(check_r));                 \
    }                                                  \
  } while (0)

// Each begins by adding one to the word that it gets.
const char kPtx[] = R"(
.version 8.0
.target sm_90
.address_size 64

.visible .entry ends(.param .u64 word)
{
  .reg .b32 %r<2>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [word];
  atom.sys.add.u32 %r1, [%rd1], 1;
  ret;
}

.visible .entry loop(.param .u64 word)
{
  .reg .b32 %r<2>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [word];
  atom.sys.add.u32 %r1, [%rd1], 1;
AGAIN:
  add.u32 %r1, %r1, 1;
  bra AGAIN;
}

.visible .entry spin(.param .u64 word)
{
  .reg .b32 %r<2>;
  .reg .b64 %rd<2>;
  .reg .pred %p<2>;
  ld.param.u64 %rd1, [word];
  atom.sys.add.u32 %r1, [%rd1], 1;
AGAIN:
  ld.acquire.sys.u32 %r1, [%rd1];
  setp.ne.u32 %p1, %r1, 0;
  @%p1 bra AGAIN;
  ret;
}

.visible .entry mbarrier(.param .u64 word)
{
  .reg .b32 %r<4>;
  .reg .b64 %rd<2>;
  .reg .pred %p<3>;
  .shared .align 8 .b64 bar;
  ld.param.u64 %rd1, [word];
  mov.u32 %r2, %tid.x;
  setp.eq.u32 %p1, %r2, 0;
  @%p1 mbarrier.init.shared::cta.b64 [bar], 1;
  bar.sync 0;
  atom.sys.add.u32 %r1, [%rd1], 1;
AGAIN:
  mbarrier.try_wait.parity.shared::cta.b64 %p2, [bar], 0;
  @!%p2 bra AGAIN;
  ret;
}
)";

struct Running {
  CUcontext context;
  volatile unsigned* word;
};

// Returns once a thread of the kernel has run.
Running Start(const char* kernel) {
  CUdevice device;
  Running running;
  void* word;
  CUdeviceptr at;
  CUmodule module;
  CUfunction function;
  DRIVER(cuDeviceGet(&device, 0));
  DRIVER(cuCtxCreate(&running.context, nullptr, 0, device));
  DRIVER(cuMemHostAlloc(&word, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
  std::memset(word, 0, 4096);
  running.word = static_cast<unsigned*>(word);
  DRIVER(cuMemHostGetDevicePointer(&at, word, 0));
  DRIVER(cuModuleLoadData(&module, kPtx));
  DRIVER(cuModuleGetFunction(&function, module, kernel));
  void* arguments[] = {&at};
  DRIVER(cuLaunchKernel(function, 300, 1, 1, 64, 1, 1, 0, nullptr, arguments,
                        nullptr));
  const auto limit =
      std::chrono::steady_clock::now() + std::chrono::seconds(40);
  while (*running.word == 0) {
    EXPECT(std::chrono::steady_clock::now() < limit);
  }
  return running;
}

int main(int argc, char** argv) {
  EXPECT(argc == 3);
  const std::string what = argv[2];
  DRIVER(cuInit(0));
  Digest digest;
  for (int round = 0; round < (what == "destroy" ? 3 : 1); ++round) {
    const Running endless = Start(argv[1]);
    std::printf("started\n");
    std::fflush(stdout);
    if (what == "exit") return 0;
    if (what == "wait") {
      DRIVER(cuCtxSynchronize());
      FAIL("an endless kernel has ended%s", "");
    }
    EXPECT(what == "destroy");
    DRIVER(cuCtxDestroy(endless.context));
    const Running after = Start("ends");
    DRIVER(cuCtxSynchronize());
    const unsigned count = *after.word;
    EXPECT(count == 300 * 64);
    digest.Add(&count, sizeof(count));
    DRIVER(cuCtxDestroy(after.context));
  }
  return digest.Pass();
}
