// The client library inside a process that forks, exits, loses its runner, or
// passes nonsense.
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/remoting/shim/client_check.h"

namespace pos::client {
namespace {

// The exit status of a child that runs `body`; its death by a signal or after
// 20 s is an error.
template <typename Body>
int InChild(const Body& body) {
  const pid_t child = ::fork();
  TRUE(child >= 0);
  if (child == 0) {
    ::alarm(20);
    ::_exit(body());
  }
  int status = 0;
  TRUE(::waitpid(child, &status, 0) == child);
  if (!WIFEXITED(status)) {
    std::fprintf(stderr, "child ended by signal %d\n", WTERMSIG(status));
    std::_Exit(1);
  }
  return WEXITSTATUS(status);
}

// Every kind of call is refused, at once.
int ChildSeesNothing(CUdeviceptr block, CUevent event) {
  unsigned value = 0;
  int count = 0;
  CUdeviceptr more = 0;
  CUcontext current = nullptr;
  const CUresult results[] = {
      cuInit(0),
      cuCtxGetCurrent(&current),
      cuCtxPopCurrent(&current),
      cuDeviceGetCount(&count),
      cuMemAlloc(&more, 16),
      cuMemFree(block),
      cuMemcpyDtoH(&value, block, 4),
      cuCtxSynchronize(),
      cuEventRecord(event, nullptr),
      cuEventSynchronize(event),
      cuEventDestroy(event),
      cuDevicePrimaryCtxRelease(0),
  };
  int number = 1;
  for (const CUresult result : results) {
    if (result != CUDA_ERROR_NOT_INITIALIZED) {
      std::fprintf(stderr, "call %d in the child gave %d\n", number, result);
      return number;
    }
    ++number;
  }
  return 0;
}

}  // namespace

void NullArguments() {
  Program::Start();
  enum { kRefused, kServed };
  constexpr struct {
    const char* symbol;
    int service;
  } kSymbols[] = {
#define POS_CU_SYMBOL(symbol, name, version, variant, status) {#symbol, status},
#include "pos/cuda_impl/api/symbols.def"
#undef POS_CU_SYMBOL
  };
  void* const library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  TRUE(library != nullptr);
  using Any =
      int (*)(std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t,
              std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t,
              std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t);
  for (const auto& [symbol, service] : kSymbols) {
    if (service == kRefused) continue;
    // If it crashes, this is the last word.
    std::fprintf(stderr, "calling %s\n", symbol);
    const auto function = reinterpret_cast<Any>(::dlsym(library, symbol));
    TRUE(function != nullptr);
    function(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  }
  // Whatever that did to contexts, the process can go on.
  const Program p = Program::Start();
  CUdeviceptr block = 0;
  OK(cuMemAlloc(&block, 16));
  p.Store(block, 3);
  unsigned value = 0;
  OK(cuMemcpyDtoH(&value, block, 4));
  WANT(3, value);
}

void ForkAfterUse() {
  const Program p = Program::Start();
  CUdeviceptr block = 0;
  OK(cuMemAlloc(&block, 16));
  CUevent event = nullptr;
  OK(cuEventCreate(&event, 0));
  p.Store(block, 11);
  WANT(0, InChild([&] { return ChildSeesNothing(block, event); }));
  // Not even with exit handlers and a child of its own.
  WANT(0, InChild([&] {
         const int inner =
             InChild([&] { return ChildSeesNothing(block, event); });
         if (inner != 0) return inner;
         std::exit(ChildSeesNothing(block, event));
       }));
  unsigned value = 0;
  OK(cuMemcpyDtoH(&value, block, 4));
  WANT(11, value);
}

// Parent and child get a session each.
void ForkBeforeUse() {
  WANT(0, InChild([] {
         const Program p = Program::Start();
         CUdeviceptr block = 0;
         OK(cuMemAlloc(&block, 16));
         p.Store(block, 21);
         unsigned value = 0;
         OK(cuMemcpyDtoH(&value, block, 4));
         return value == 21 ? 0 : 1;
       }));
  const Program p = Program::Start();
  CUdeviceptr block = 0;
  OK(cuMemAlloc(&block, 16));
  p.Store(block, 22);
  OK(cuCtxSynchronize());
}

// Forks while other threads are in the middle of calls, and while threads come
// and go: whatever locks they held, the child's calls return.
void ForkUnderLoad() {
  const Program p = Program::Start();
  CUdeviceptr block = 0;
  OK(cuMemAlloc(&block, 4096));
  CUevent event = nullptr;
  OK(cuEventCreate(&event, 0));
  std::atomic<bool> end{false};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    OK(cuCtxSetCurrent(p.context));
    while (!end.load()) {
      CUdeviceptr mine = 0;
      OK(cuMemAlloc(&mine, 64));
      p.Store(mine, 1);
      OK(cuMemFree(mine));
    }
  });
  threads.emplace_back([&] {
    while (!end.load()) {
      std::thread([&] {
        OK(cuCtxSetCurrent(p.context));
        CUevent mine = nullptr;
        OK(cuEventCreate(&mine, 0));
        OK(cuEventDestroy(mine));
      }).join();
    }
  });
  const auto fork_once = [&] {
    WANT(0, InChild([&] { return ChildSeesNothing(block, event); }));
  };
  for (int i = 0; i < 40; ++i) {
    fork_once();
    // From a thread that the library has never seen.
    std::thread(fork_once).join();
  }
  end.store(true);
  for (std::thread& t : threads) t.join();
  OK(cuCtxSynchronize());
}

namespace {

CUdeviceptr g_block = 0;

// Runs after the destructors of everything that came later, the library's own
// included.
void LateHandler() {
  unsigned value = 0;
  OK(cuMemcpyDtoH(&value, g_block, 4));
  WANT(31, value);
  OK(cuMemFree(g_block));
  OK(cuDevicePrimaryCtxRelease(0));
}

struct AtThreadEnd {
  ~AtThreadEnd() { cuCtxSynchronize(); }
};

}  // namespace

void ExitHandlers() {
  TRUE(std::atexit(LateHandler) == 0);
  const Program p = Program::Start();
  OK(cuMemAlloc(&g_block, 16));
  p.Store(g_block, 31);
  // A thread that still calls while the process ends.
  std::thread([&] {
    thread_local AtThreadEnd at_end;
    (void)at_end;
    cuCtxSetCurrent(p.context);
    for (;;) cuStreamQuery(nullptr);
  }).detach();
  std::thread([&] {
    thread_local AtThreadEnd at_end;
    (void)at_end;
    OK(cuCtxSetCurrent(p.context));
  }).join();
  std::exit(0);
}

// The test ends this client's session when it sees the line.
void RunnerGone() {
  const Program p = Program::Start();
  CUdeviceptr flag = 0;
  OK(cuMemAlloc(&flag, 4));
  OK(cuMemsetD32(flag, 0, 1));
  void* params[] = {&flag};
  OK(cuLaunchKernel(p.wait, 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr));
  // Under way when it happens: each fails, none hangs.
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      OK(cuCtxSetCurrent(p.context));
      TRUE(cuCtxSynchronize() != CUDA_SUCCESS);
    });
  }
  std::puts("waiting");
  std::fflush(stdout);
  for (std::thread& t : threads) t.join();
  CUdeviceptr block = 0;
  CUresult last = CUDA_SUCCESS;
  for (int i = 0; i < 3; ++i) last = cuMemAlloc(&block, 16);
  WANT(CUDA_ERROR_DEVICE_UNAVAILABLE, last);
  WANT(CUDA_ERROR_DEVICE_UNAVAILABLE, cuCtxSynchronize());
  void* none[] = {&block};
  WANT(CUDA_ERROR_DEVICE_UNAVAILABLE,
       cuLaunchKernel(p.wait, 1, 1, 1, 1, 1, 1, 0, nullptr, none, nullptr));
}

}  // namespace pos::client

int main(int argc, char** argv) {
  const struct {
    const char* name;
    void (*run)();
  } kCases[] = {
#define CASE(name) {#name, pos::client::name}
      CASE(ErrorsAtTheCall),
      CASE(OutOfMemory),
      CASE(LaunchLimits),
      CASE(Handles),
      CASE(SynchronousCopies),
      CASE(IllegalAddress),
      CASE(MisalignedAddress),
      CASE(Trap),
      CASE(FaultBesideAnotherContext),
      CASE(NullArguments),
      CASE(ManagedMemory),
      CASE(ForkAfterUse),
      CASE(ForkBeforeUse),
      CASE(ForkUnderLoad),
      CASE(ExitHandlers),
      CASE(RunnerGone),
      CASE(LimitsOfAContext),
      CASE(HeapLimit),
      CASE(StackLimit),
      CASE(PrintfLimit),
      CASE(DynamicSharedMemory),
      CASE(LargeParameters),
      CASE(OutputOfThreads),
      CASE(Clusters),
#undef CASE
  };
  for (const auto& c : kCases) {
    if (argc == 2 && std::string_view(argv[1]) == c.name) {
      c.run();
      return 0;
    }
  }
  std::fprintf(stderr, "usage: shim_client CASE\n");
  return 2;
}
