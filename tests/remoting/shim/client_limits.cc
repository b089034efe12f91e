// What a program may ask of a context and of a launch: limits, dynamic shared
// memory, large parameter blocks; and what its kernels print.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string>
#include <thread>
#include <vector>

#include "tests/remoting/shim/client_check.h"

namespace pos::client {
namespace {

// take(sizes, out, n): out[i] = malloc(sizes) for n rounds of one thread.
// deep(depth, out): recursion; out = depth. say(number): prints "<number>".
// shared(out, words): fills dynamic shared memory, then sums it up.
constexpr char kMore[] = R"(
.version 8.0
.target sm_90
.address_size 64
.extern .func (.param .b64 r) malloc(.param .b64 n);
.extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a);
.global .align 1 .b8 text[6] = {60, 37, 100, 62, 10, 0};
.extern .shared .align 16 .b8 pool[];
.visible .entry take(.param .u64 bytes, .param .u64 out, .param .u32 n)
{
  .reg .b64 %d<5>;
  .reg .b32 %r<3>;
  .reg .pred %p;
  ld.param.u64 %d1, [bytes];
  ld.param.u64 %d2, [out];
  ld.param.u32 %r1, [n];
more:
  {
    .param .b64 a;
    st.param.b64 [a], %d1;
    .param .b64 r;
    call.uni (r), malloc, (a);
    ld.param.b64 %d3, [r];
  }
  st.global.u64 [%d2], %d3;
  add.u64 %d2, %d2, 8;
  sub.u32 %r1, %r1, 1;
  setp.ne.u32 %p, %r1, 0;
  @%p bra more;
  ret;
}
.func (.param .b32 r) down(.param .b32 n)
{
  .reg .b32 %r<4>;
  .reg .pred %p;
  ld.param.u32 %r1, [n];
  mov.u32 %r2, 0;
  setp.eq.u32 %p, %r1, 0;
  @%p bra done;
  sub.u32 %r3, %r1, 1;
  {
    .param .b32 a;
    st.param.b32 [a], %r3;
    .param .b32 b;
    call.uni (b), down, (a);
    ld.param.b32 %r2, [b];
  }
  add.u32 %r2, %r2, 1;
done:
  st.param.b32 [r], %r2;
  ret;
}
.visible .entry deep(.param .u64 out, .param .u32 depth)
{
  .reg .b64 %d;
  .reg .b32 %r<3>;
  ld.param.u64 %d, [out];
  ld.param.u32 %r1, [depth];
  {
    .param .b32 a;
    st.param.b32 [a], %r1;
    .param .b32 b;
    call.uni (b), down, (a);
    ld.param.b32 %r2, [b];
  }
  st.global.u32 [%d], %r2;
  ret;
}
.visible .entry say(.param .u32 number)
{
  .local .align 8 .b8 depot[8];
  .reg .b64 %d<3>;
  .reg .b32 %r;
  ld.param.u32 %r, [number];
  mov.u64 %d1, depot;
  st.local.u32 [%d1], %r;
  cvta.local.u64 %d1, %d1;
  mov.u64 %d2, text;
  cvta.global.u64 %d2, %d2;
  {
    .param .b64 f;
    st.param.b64 [f], %d2;
    .param .b64 a;
    st.param.b64 [a], %d1;
    .param .b32 x;
    call.uni (x), vprintf, (f, a);
  }
  ret;
}
.visible .entry shared(.param .u64 out, .param .u32 words)
{
  .reg .b64 %d;
  .reg .b32 %r<9>;
  .reg .pred %p;
  ld.param.u64 %d, [out];
  ld.param.u32 %r1, [words];
  mov.u32 %r2, %tid.x;
  mov.u32 %r7, %ntid.x;
  mov.u32 %r8, pool;
  mov.u32 %r3, %r2;
fill:
  setp.ge.u32 %p, %r3, %r1;
  @%p bra filled;
  mad.lo.u32 %r4, %r3, 4, %r8;
  st.shared.u32 [%r4], %r3;
  add.u32 %r3, %r3, %r7;
  bra fill;
filled:
  bar.sync 0;
  setp.ne.u32 %p, %r2, 0;
  @%p bra end;
  mov.u32 %r3, 0;
  mov.u32 %r5, 0;
sum:
  mad.lo.u32 %r4, %r3, 4, %r8;
  ld.shared.u32 %r6, [%r4];
  add.u32 %r5, %r5, %r6;
  add.u32 %r3, %r3, 1;
  setp.lt.u32 %p, %r3, %r1;
  @%p bra sum;
  st.global.u32 [%d], %r5;
end:
  ret;
}
)";

struct More {
  CUmodule module = nullptr;
  CUfunction take = nullptr;
  CUfunction deep = nullptr;
  CUfunction say = nullptr;
  CUfunction shared = nullptr;

  static More Load() {
    More more;
    OK(cuModuleLoadData(&more.module, kMore));
    OK(cuModuleGetFunction(&more.take, more.module, "take"));
    OK(cuModuleGetFunction(&more.deep, more.module, "deep"));
    OK(cuModuleGetFunction(&more.say, more.module, "say"));
    OK(cuModuleGetFunction(&more.shared, more.module, "shared"));
    return more;
  }
  // What `rounds` mallocs of `bytes` gave: how many succeeded.
  [[nodiscard]] unsigned Take(std::uint64_t bytes, unsigned rounds) const {
    CUdeviceptr out = 0;
    OK(cuMemAlloc(&out, 8ull * rounds));
    void* params[] = {&bytes, &out, &rounds};
    OK(cuLaunchKernel(take, 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr));
    std::vector<std::uint64_t> got(rounds);
    OK(cuMemcpyDtoH(got.data(), out, 8ull * rounds));
    OK(cuMemFree(out));
    unsigned count = 0;
    for (const std::uint64_t address : got) count += address != 0 ? 1 : 0;
    return count;
  }
  CUresult Deep(unsigned depth) const {
    CUdeviceptr out = 0;
    OK(cuMemAlloc(&out, 4));
    void* params[] = {&out, &depth};
    OK(cuLaunchKernel(deep, 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr));
    unsigned got = 0;
    const CUresult result = cuMemcpyDtoH(&got, out, 4);
    if (result == CUDA_SUCCESS) TRUE(got == depth);
    return result;
  }
  void Say(unsigned number, CUstream stream) const {
    void* params[] = {&number};
    OK(cuLaunchKernel(say, 1, 1, 1, 1, 1, 1, 0, stream, params, nullptr));
  }
};

std::size_t Limit(CUlimit limit) {
  std::size_t value = 0;
  OK(cuCtxGetLimit(&value, limit));
  return value;
}

// Standard output goes to a file in memory from here on.
class Captured {
 public:
  Captured() : fd_(::memfd_create("stdout", MFD_CLOEXEC)) {
    TRUE(fd_ >= 0 && ::dup2(fd_, 1) == 1);
    std::setvbuf(stdout, nullptr, _IONBF, 0);
  }
  [[nodiscard]] std::string Text() const {
    struct stat st {};
    TRUE(::fstat(fd_, &st) == 0);
    std::string text(static_cast<std::size_t>(st.st_size), '\0');
    TRUE(::pread(fd_, text.data(), text.size(), 0) ==
         static_cast<ssize_t>(text.size()));
    return text;
  }

 private:
  const int fd_;
};

std::size_t Count(const std::string& text, const std::string& what) {
  std::size_t count = 0;
  for (std::size_t at = text.find(what); at != std::string::npos;
       at = text.find(what, at + 1)) {
    ++count;
  }
  return count;
}

}  // namespace

void LimitsOfAContext() {
  Program::Start();
  WANT(1024, Limit(CU_LIMIT_STACK_SIZE));
  WANT(1 << 20, Limit(CU_LIMIT_PRINTF_FIFO_SIZE));
  WANT(8 << 20, Limit(CU_LIMIT_MALLOC_HEAP_SIZE));
  WANT(2048, Limit(CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT));
  OK(cuCtxSetLimit(CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT, 4000));
  WANT(4000, Limit(CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT));
  // Not on a device of compute capability 9.0.
  WANT(CUDA_ERROR_UNSUPPORTED_LIMIT,
       cuCtxSetLimit(CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH, 4));
  std::size_t value = 0;
  WANT(CUDA_ERROR_UNSUPPORTED_LIMIT,
       cuCtxGetLimit(&value, CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH));
  WANT(CUDA_ERROR_UNSUPPORTED_LIMIT, cuCtxSetLimit(CU_LIMIT_MAX, 4));
  WANT(CUDA_ERROR_UNSUPPORTED_LIMIT, cuCtxSetLimit(CU_LIMIT_CIG_ENABLED, 1));
  OK(cuCtxSetLimit(CU_LIMIT_MAX_L2_FETCH_GRANULARITY, 64));
  WANT(64, Limit(CU_LIMIT_MAX_L2_FETCH_GRANULARITY));
  OK(cuCtxSetLimit(CU_LIMIT_MAX_L2_FETCH_GRANULARITY, 1000));
  WANT(128, Limit(CU_LIMIT_MAX_L2_FETCH_GRANULARITY));
  OK(cuCtxSetLimit(CU_LIMIT_PERSISTING_L2_CACHE_SIZE, ~std::size_t{0}));
  int most = 0;
  OK(cuDeviceGetAttribute(&most,
                          CU_DEVICE_ATTRIBUTE_MAX_PERSISTING_L2_CACHE_SIZE, 0));
  WANT(most, Limit(CU_LIMIT_PERSISTING_L2_CACHE_SIZE));
  // A context that was reset is a new one.
  OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 5000));
  WANT(5008, Limit(CU_LIMIT_STACK_SIZE));
  OK(cuDevicePrimaryCtxReset(0));
  CUcontext again = nullptr;
  OK(cuDevicePrimaryCtxRetain(&again, 0));
  WANT(1024, Limit(CU_LIMIT_STACK_SIZE));
}

void HeapLimit() {
  Program::Start();
  const More more = More::Load();  // loaded, not launched: it may still be set
  constexpr std::uint64_t kMiB = 1 << 20;
  // Device memory for variables is scarce where this test runs.
  for (const std::uint64_t bytes : {2 * kMiB, 4 * kMiB}) {
    OK(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, bytes));
    WANT(bytes, Limit(CU_LIMIT_MALLOC_HEAP_SIZE));
  }
  WANT(CUDA_ERROR_OUT_OF_MEMORY,
       cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, std::size_t{1} << 39));
  WANT(4 << 20, Limit(CU_LIMIT_MALLOC_HEAP_SIZE));
  // A little goes to headers.
  WANT(3, more.Take(kMiB, 20));
  for (const std::uint64_t bytes : {kMiB, 4 * kMiB}) {
    WANT(CUDA_ERROR_INVALID_VALUE,
         cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, bytes));
  }
  // The heap is the context's: it outlives the module that came first.
  CUmodule second = nullptr;
  OK(cuModuleLoadData(&second, kMore));
  OK(cuModuleUnload(more.module));
  More rest;
  OK(cuModuleGetFunction(&rest.take, second, "take"));
  WANT(0, rest.Take(kMiB, 1));
  WANT(1, rest.Take(kMiB / 2, 1));
}

void StackLimit() {
  Program::Start();
  const More more = More::Load();
  OK(more.Deep(50));
  OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 64 << 10));
  WANT(64 << 10, Limit(CU_LIMIT_STACK_SIZE));
  OK(more.Deep(4000));
  OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, ~std::size_t{0}));
  WANT(512 << 10, Limit(CU_LIMIT_STACK_SIZE));
  OK(more.Deep(30000));
  OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 1024));
  OK(more.Deep(50));
  WANT(CUDA_ERROR_HARDWARE_STACK_ERROR, more.Deep(100));
}

void PrintfLimit() {
  Program::Start();
  const Captured captured;
  const More more = More::Load();
  OK(cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, 4096));
  WANT(4096, Limit(CU_LIMIT_PRINTF_FIFO_SIZE));
  unsigned number = 777777;  // 9 bytes each, and 16 of overhead
  void* params[] = {&number};
  OK(cuLaunchKernel(more.say, 10, 1, 1, 100, 1, 1, 0, nullptr, params,
                    nullptr));
  OK(cuCtxSynchronize());
  WANT(4096 / 25, Count(captured.Text(), "<777777>\n"));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, 1 << 20));
}

void DynamicSharedMemory() {
  Program::Start();
  const More more = More::Load();
  constexpr unsigned kMost = 227 << 10;
  CUdeviceptr out = 0;
  OK(cuMemAlloc(&out, 4));
  const auto run = [&](unsigned bytes) {
    unsigned words = bytes / 4;
    void* params[] = {&out, &words};
    const CUresult result = cuLaunchKernel(more.shared, 3, 1, 1, 64, 1, 1,
                                           bytes, nullptr, params, nullptr);
    if (result != CUDA_SUCCESS) return result;
    unsigned got = 0;
    OK(cuMemcpyDtoH(&got, out, 4));
    TRUE(got == words / 2 * (words - 1) + (words % 2) * ((words - 1) / 2));
    return CUDA_SUCCESS;
  };
  OK(run(48 << 10));
  WANT(CUDA_ERROR_INVALID_VALUE, run((48 << 10) + 4));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuFuncSetAttribute(more.shared,
                          CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                          kMost + 1));
  OK(cuFuncSetAttribute(
      more.shared, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, kMost));
  OK(run(100 << 10));
  OK(run(kMost));
  WANT(CUDA_ERROR_INVALID_VALUE, run(kMost + 4));
}

// A kernel with as many bytes of parameters as CUDA allows, and with one more.
void LargeParameters() {
  Program::Start();
  constexpr unsigned kMost = 32764;
  constexpr unsigned kBlob = kMost - 8;
  // sum(out, blob): out = the sum of the blob's words, 4 bytes at a time.
  const auto code = [](unsigned bytes) {
    return ".version 8.0\n.target sm_90\n.address_size 64\n"
           ".visible .entry sum(.param .u64 out, .param .align 4 .b8 blob[" +
           std::to_string(bytes) +
           "]) {\n.reg .b64 %d<4>;\n.reg .b32 %r<4>;\n.reg .pred %p;\n"
           "ld.param.u64 %d1, [out];\nmov.u64 %d2, blob;\nmov.u32 %r1, 0;\n"
           "mov.u32 %r2, 0;\nmore:\nld.param.u32 %r3, [%d2];\n"
           "add.u32 %r1, %r1, %r3;\nadd.u64 %d2, %d2, 4;\n"
           "add.u32 %r2, %r2, 4;\nsetp.lt.u32 %p, %r2, " +
           std::to_string(bytes) +
           ";\n@%p bra more;\nst.global.u32 [%d1], %r1;\nret;\n}\n";
  };
  CUmodule module = nullptr;
  OK(cuModuleLoadData(&module, code(kBlob).c_str()));
  CUfunction sum = nullptr;
  OK(cuModuleGetFunction(&sum, module, "sum"));
  std::size_t offset = 0;
  std::size_t bytes = 0;
  OK(cuFuncGetParamInfo(sum, 1, &offset, &bytes));
  TRUE(offset == 8 && bytes == kBlob);
  CUdeviceptr out = 0;
  OK(cuMemAlloc(&out, 4));
  std::vector<unsigned> blob(kBlob / 4);
  // More of them than the ring holds at once.
  for (unsigned round = 0; round < 100; ++round) {
    unsigned want = 0;
    for (unsigned i = 0; i < blob.size(); ++i) {
      blob[i] = i * 2654435761u + round;
      want += blob[i];
    }
    void* params[] = {&out, blob.data()};
    OK(cuLaunchKernel(sum, 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr));
    if (round % 10 != 9) continue;
    unsigned got = 0;
    OK(cuMemcpyDtoH(&got, out, 4));
    TRUE(got == want);
  }
}

// Threads that print and synchronize at once: after its own synchronization
// each finds its own text written, and all of it is there once.
void OutputOfThreads() {
  const Program p = Program::Start();
  const Captured captured;
  const More more = More::Load();
  constexpr unsigned kThreads = 4;
  constexpr unsigned kRounds = 60;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      OK(cuCtxSetCurrent(p.context));
      CUstream stream = nullptr;
      OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
      for (unsigned i = 0; i < kRounds; ++i) {
        const unsigned number = 1000 * (t + 1) + i;
        more.Say(number, stream);
        OK(cuStreamSynchronize(stream));
        WANT(1, Count(captured.Text(), "<" + std::to_string(number) + ">\n"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string text = captured.Text();
  WANT(kThreads * kRounds, Count(text, "<"));
  for (unsigned t = 0; t < kThreads; ++t) {
    std::size_t before = 0;
    for (unsigned i = 0; i < kRounds; ++i) {
      const std::size_t at =
          text.find("<" + std::to_string(1000 * (t + 1) + i) + ">\n");
      TRUE(at != std::string::npos && at >= before);
      before = at;
    }
  }
  // At the end of a context, too; nothing waits for this kernel but that.
  more.Say(5, nullptr);
  OK(cuDevicePrimaryCtxReset(0));
  WANT(1, Count(captured.Text(), "<5>\n"));
}

// Clusters of several blocks are not launched, and whoever asks how many fit
// learns so: cublasCreate wants an answer.
void Clusters() {
  const Program program = Program::Start();
  CUlaunchAttribute size{};
  size.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
  CUlaunchConfig config{};
  config.gridDimX = 16;
  config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = 32;
  config.blockDimY = config.blockDimZ = 1;
  config.attrs = &size;
  int per_processor = 0;
  int processors = 0;
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, program.store,
                                                 32, 0));
  OK(cuDeviceGetAttribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                          0));
  int clusters = -1;
  OK(cuOccupancyMaxActiveClusters(&clusters, program.store, &config));
  WANT(per_processor * processors, clusters);
  config.numAttrs = 1;
  for (const unsigned blocks : {0u, 1u, 2u, 8u}) {
    size.value.clusterDim = {blocks, 1, 1};
    clusters = -1;
    WANT(blocks == 0 ? CUDA_ERROR_INVALID_CLUSTER_SIZE : CUDA_SUCCESS,
         cuOccupancyMaxActiveClusters(&clusters, program.store, &config));
    WANT(blocks == 0   ? -1
         : blocks == 1 ? per_processor * processors
                       : 0,
         clusters);
  }
  WANT(CUDA_ERROR_NOT_SUPPORTED,
       cuLaunchKernelEx(&config, program.store, nullptr, nullptr));
  int most = 0;
  OK(cuOccupancyMaxPotentialClusterSize(&most, program.store, &config));
  WANT(1, most);
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuOccupancyMaxActiveClusters(nullptr, program.store, &config));
  WANT(CUDA_ERROR_INVALID_VALUE,
       cuOccupancyMaxPotentialClusterSize(&most, program.store, nullptr));
}

}  // namespace pos::client
