// A driver of which one function always fails: passes the look-ups of functions
// on to the library POS_FAULTY_REAL, but for the function POS_FAULTY_CALL (or
// the version, for "old"), which is replaced.
#include <cuda.h>
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

namespace {

using Find = CUresult (*)(const char*, void**, int, cuuint64_t,
                          CUdriverProcAddressQueryResult*);

// Any signature: the caller cleans up its arguments.
CUresult Fail() { return CUDA_ERROR_NOT_PERMITTED; }
CUresult OldVersion(int* version) {
  *version = 11020;
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) CUresult cuGetProcAddress_v2(
    const char* name, void** function, int version, cuuint64_t flags,
    CUdriverProcAddressQueryResult* status) {
  static void* const real = ::dlopen(std::getenv("POS_FAULTY_REAL"), RTLD_NOW);
  static const auto find =
      reinterpret_cast<Find>(::dlsym(real, "cuGetProcAddress_v2"));
  const char* const faulty = std::getenv("POS_FAULTY_CALL");
  if (std::strcmp(faulty, "old") == 0 &&
      std::strcmp(name, "cuDriverGetVersion") == 0) {
    *function = reinterpret_cast<void*>(&OldVersion);
    return CUDA_SUCCESS;
  }
  const char* const missing = std::getenv("POS_FAULTY_MISSING");
  if (missing != nullptr && std::strcmp(missing, name) == 0) {
    *function = nullptr;
    return CUDA_ERROR_NOT_FOUND;
  }
  if (std::strcmp(faulty, name) == 0) {
    *function = reinterpret_cast<void*>(&Fail);
    return CUDA_SUCCESS;
  }
  return find(name, function, version, flags, status);
}
