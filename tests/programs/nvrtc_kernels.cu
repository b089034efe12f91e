// Kernels compiled while the program runs (NVRTC): templates by their names,
// options, headers, errors in the source; loaded as PTX through the library
// calls of the driver API.
#include <cuda.h>
#include <nvrtc.h>

#include <string>

#include "arrays.h"

#define NVRTC(call)                                                     \
  do {                                                                  \
    const nvrtcResult result_ = (call);                                 \
    if (result_ != NVRTC_SUCCESS) {                                     \
      FAIL("%s:%d: %s: %s", __FILE__, __LINE__, #call,                  \
           nvrtcGetErrorString(result_));                               \
    }                                                                   \
  } while (0)

#define DRIVER(call)                                                    \
  do {                                                                  \
    const CUresult result_ = (call);                                    \
    if (result_ != CUDA_SUCCESS) {                                      \
      FAIL("%s:%d: %s: %d", __FILE__, __LINE__, #call,                  \
           static_cast<int>(result_));                                  \
    }                                                                   \
  } while (0)

const char kSource[] = R"(
#include "shared.h"
__constant__ int offset = 5;
template <typename T, int kFactor>
__global__ void Scale(T* data, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) data[i] = Mix<T>(data[i], kFactor) + static_cast<T>(SALT + offset);
}
)";
const char kHeader[] =
    "template <typename T> __device__ T Mix(T x, int f) { return x * f - 1; }";

// PTX of the kernel `name`, compiled with -DSALT; `lowered` becomes its symbol.
std::string Compile(const std::string& name, int salt, std::string* lowered) {
  nvrtcProgram program;
  const char* headers[] = {kHeader};
  const char* names[] = {"shared.h"};
  NVRTC(nvrtcCreateProgram(&program, kSource, "kernels.cu", 1, headers, names));
  NVRTC(nvrtcAddNameExpression(program, name.c_str()));
  const std::string define = "-DSALT=" + std::to_string(salt);
  const char* options[] = {"-arch=compute_80", define.c_str(), "-std=c++17"};
  NVRTC(nvrtcCompileProgram(program, 3, options));
  size_t size = 0;
  NVRTC(nvrtcGetPTXSize(program, &size));
  std::string ptx(size, '\0');
  NVRTC(nvrtcGetPTX(program, &ptx[0]));
  const char* symbol = nullptr;
  NVRTC(nvrtcGetLoweredName(program, name.c_str(), &symbol));
  *lowered = symbol;
  NVRTC(nvrtcDestroyProgram(&program));
  return ptx;
}

void ExpectCompileError() {
  nvrtcProgram program;
  NVRTC(nvrtcCreateProgram(&program, "__global__ void K() { nothing(); }",
                           "bad.cu", 0, nullptr, nullptr));
  EXPECT(nvrtcCompileProgram(program, 0, nullptr) == NVRTC_ERROR_COMPILATION);
  size_t size = 0;
  NVRTC(nvrtcGetProgramLogSize(program, &size));
  std::string log(size, '\0');
  NVRTC(nvrtcGetProgramLog(program, &log[0]));
  EXPECT(log.find("nothing") != std::string::npos);
  NVRTC(nvrtcDestroyProgram(&program));
}

template <typename T>
void Launch(CUkernel kernel, T* data, int n) {
  void* arguments[] = {&data, &n};
  DRIVER(cuLaunchKernel(reinterpret_cast<CUfunction>(kernel), (n + 63) / 64, 1,
                        1, 64, 1, 1, 0, nullptr, arguments, nullptr));
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 500;
  std::vector<int> ints(n);
  std::vector<float> floats(n);
  for (int i = 0; i < n; ++i) {
    ints[i] = i;
    floats[i] = static_cast<float>(i % 50);
  }
  int* device_ints = Upload(ints);
  float* device_floats = Upload(floats);
  ExpectCompileError();
  Digest digest;
  CUlibrary libraries[2] = {};
  CUkernel int_kernel = nullptr, float_kernel = nullptr;
  for (int it = 0; it < iterations; ++it) {
    if (it % 40 == 0) {  // compiled anew now and then
      const int salt = it % 7;
      std::string lowered;
      for (CUlibrary& library : libraries) {
        if (library != nullptr) DRIVER(cuLibraryUnload(library));
      }
      std::string ptx = Compile("Scale<int, 3>", salt, &lowered);
      DRIVER(cuLibraryLoadData(&libraries[0], ptx.c_str(), nullptr, nullptr, 0,
                               nullptr, nullptr, 0));
      DRIVER(cuLibraryGetKernel(&int_kernel, libraries[0], lowered.c_str()));
      ptx = Compile("Scale<float, -1>", salt, &lowered);
      DRIVER(cuLibraryLoadData(&libraries[1], ptx.c_str(), nullptr, nullptr, 0,
                               nullptr, nullptr, 0));
      DRIVER(cuLibraryGetKernel(&float_kernel, libraries[1], lowered.c_str()));
    }
    const int salt = it / 40 * 40 % 7;
    Launch(int_kernel, device_ints, n);
    Launch(float_kernel, device_floats, n);
    for (int i = 0; i < n; ++i) {
      ints[i] = static_cast<int>(static_cast<unsigned>(ints[i]) * 3 - 1) +
                salt + 5;
      floats[i] = -floats[i] - 1 + static_cast<float>(salt + 5);
    }
    const auto got = Download(device_ints, n);
    ExpectSame(got, ints, "ints");
    ExpectSame(Download(device_floats, n), floats, "floats");
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
