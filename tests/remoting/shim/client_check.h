// For the client programs of session_test: checks that say where they failed,
// and kernels.
#ifndef POS_TESTS_REMOTING_SHIM_CLIENT_CHECK_H_
#define POS_TESTS_REMOTING_SHIM_CLIENT_CHECK_H_

#include <cuda.h>

#include <cstdio>
#include <cstdlib>

namespace pos::client {

inline void Want(int wanted, int got, const char* what, const char* file,
                 int line) {
  if (wanted == got) return;
  std::fprintf(stderr, "%s:%d: %s: got %d, wanted %d\n", file, line, what, got,
               wanted);
  std::_Exit(1);
}

}  // namespace pos::client

// The result of `call` is `code`.
#define WANT(code, call)                                                     \
  ::pos::client::Want(static_cast<int>(code), static_cast<int>(call), #call, \
                      __FILE__, __LINE__)
#define OK(call) WANT(0, call)
#define TRUE(condition) WANT(1, (condition) ? 1 : 0)

namespace pos::client {

// store(address, value), trap(), small(address) for at most 64 threads, and
// wait(address): until the word there is not 0.
extern const char kKernels[];

struct Program {
  CUcontext context = nullptr;
  CUmodule module = nullptr;
  CUfunction store = nullptr;
  CUfunction small = nullptr;
  CUfunction trap = nullptr;
  CUfunction wait = nullptr;

  // cuInit, the primary context made current, the kernels loaded.
  static Program Start();
  void Store(CUdeviceptr address, unsigned value) const;
};

void ErrorsAtTheCall();
void OutOfMemory();
void LaunchLimits();
void Handles();
void SynchronousCopies();
void IllegalAddress();
void MisalignedAddress();
void Trap();
void FaultBesideAnotherContext();
void NullArguments();
void ManagedMemory();
void ForkAfterUse();
void ForkBeforeUse();
void ForkUnderLoad();
void ExitHandlers();
void RunnerGone();
void LimitsOfAContext();
void HeapLimit();
void StackLimit();
void PrintfLimit();
void DynamicSharedMemory();
void LargeParameters();
void OutputOfThreads();
void Clusters();

}  // namespace pos::client

#endif  // POS_TESTS_REMOTING_SHIM_CLIENT_CHECK_H_
