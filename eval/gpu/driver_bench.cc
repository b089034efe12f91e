// Question: what do launches and copies cost a program, with the driver that
//   the loader finds?
// Unit: nanoseconds per launch of an empty kernel over bursts, microseconds per
//   launch that is waited for, bytes per second of copies.
// Baseline: the same program with the GPU's own driver.
// Prints one JSON object with every measurement; run_all compares.
//
//   driver_bench [SECONDS_EACH (default 0.5)] [COPY_MIB (default 256)]
#include <cuda.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr char kPtx[] = R"(
.version 7.0
.target sm_80
.address_size 64
.visible .entry empty(.param .u64 p) { ret; }
)";
constexpr int kBurst = 1000;

void* Find(const char* name) {
  static void* const library = ::dlopen("libcuda.so.1", RTLD_NOW);
  void* const found = library != nullptr ? ::dlsym(library, name) : nullptr;
  if (found == nullptr) {
    std::fprintf(stderr, "driver_bench: %s: %s\n", name, ::dlerror());
    std::exit(1);
  }
  return found;
}

void Check(CUresult result, const char* what) {
  if (result == CUDA_SUCCESS) return;
  std::fprintf(stderr, "driver_bench: %s: error %d\n", what,
               static_cast<int>(result));
  std::exit(1);
}

// The header's declaration of a function, called by its name in the library.
template <typename Function, typename... Args>
void Call(Function* /*declaration*/, const char* name, Args... args) {
  Check(reinterpret_cast<Function*>(Find(name))(args...), name);
}
#define DRIVER_TEXT2(x) #x
#define DRIVER_TEXT(x) DRIVER_TEXT2(x)
// cuda.h gives some functions other names: what it makes of the name is asked.
#define DRIVER(name, ...) \
  Call(static_cast<decltype(&name)>(nullptr), DRIVER_TEXT(name), __VA_ARGS__)

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

struct Median {
  double median = 0, least = 0, most = 0;
  explicit Median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    median = v[v.size() / 2];
    least = v.front();
    most = v.back();
  }
};

// `what` until `seconds` have passed, three times at least.
template <typename What>
Median Measure(double seconds, double per, const What& what) {
  what();  // the first time is not counted
  std::vector<double> times;
  const Clock::time_point started = Clock::now();
  while (times.size() < 3 || Seconds(started) < seconds) {
    const Clock::time_point begun = Clock::now();
    what();
    times.push_back(Seconds(begun) / per);
  }
  return Median(std::move(times));
}

void Print(const char* name, const Median& m, double scale) {
  std::printf("\"%s\": {\"median\": %.6g, \"least\": %.6g, \"most\": %.6g}",
              name, m.median * scale, m.least * scale, m.most * scale);
}

void Launches(double seconds) {
  CUmodule module = nullptr;
  CUfunction function = nullptr;
  CUstream stream = nullptr;
  DRIVER(cuModuleLoadData, &module, kPtx);
  DRIVER(cuModuleGetFunction, &function, module, "empty");
  DRIVER(cuStreamCreate, &stream, 0u);
  auto* const launch =
      reinterpret_cast<decltype(&cuLaunchKernel)>(Find("cuLaunchKernel"));
  auto* const wait = reinterpret_cast<decltype(&cuStreamSynchronize)>(
      Find("cuStreamSynchronize"));
  CUdeviceptr argument = 0;
  void* arguments[] = {&argument};
  const auto once = [&] {
    Check(launch(function, 1, 1, 1, 32, 1, 1, 0, stream, arguments, nullptr),
          "cuLaunchKernel");
  };
  Print("launch_ns",
        Measure(seconds, kBurst,
                [&] {
                  for (int i = 0; i < kBurst; ++i) once();
                  Check(wait(stream), "cuStreamSynchronize");
                }),
        1e9);
  std::printf(",\n");
  Print("launch_and_wait_us",
        Measure(seconds, 1,
                [&] {
                  once();
                  Check(wait(stream), "cuStreamSynchronize");
                }),
        1e6);
}

// A row: bytes, direction, memory, seconds a copy.
void Copies(double seconds, std::size_t most) {
  CUdeviceptr device = 0;
  void* pinned = nullptr;
  DRIVER(cuMemAlloc, &device, most);
  DRIVER(cuMemAllocHost, &pinned, most);
  std::vector<char> pageable(most, 1);
  std::memset(pinned, 1, most);
  auto* const to_device = reinterpret_cast<decltype(&cuMemcpyHtoD)>(
      Find(DRIVER_TEXT(cuMemcpyHtoD)));
  auto* const to_host = reinterpret_cast<decltype(&cuMemcpyDtoH)>(
      Find(DRIVER_TEXT(cuMemcpyDtoH)));
  std::printf(",\n\"copies\": [");
  const char* comma = "\n";
  for (const std::size_t bytes : {std::size_t{4096}, most}) {
    for (const bool is_pinned : {true, false}) {
      void* const host = is_pinned ? pinned : pageable.data();
      for (const bool out : {true, false}) {
        const Median m = Measure(seconds, 1, [&] {
          Check(out ? to_host(host, device, bytes)
                    : to_device(device, host, bytes),
                "cuMemcpy");
        });
        std::printf(
            "%s{\"bytes\": %zu, \"direction\": \"%s\", "
            "\"memory\": \"%s\", ",
            comma, bytes, out ? "DtoH" : "HtoD",
            is_pinned ? "pinned" : "pageable");
        Print("us", m, 1e6);
        std::printf(", \"gb_per_s\": %.4g}",
                    static_cast<double>(bytes) / m.median / 1e9);
        comma = ",\n";
      }
    }
  }
  std::printf("]");
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.5;
  const std::size_t mib = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 256;
  CUdevice ordinal = 0;
  CUcontext context = nullptr;
  DRIVER(cuInit, 0u);
  DRIVER(cuDeviceGet, &ordinal, 0);
  DRIVER(cuDevicePrimaryCtxRetain, &context, ordinal);
  DRIVER(cuCtxSetCurrent, context);
  std::printf("{");
  Launches(seconds);
  Copies(seconds, std::max<std::size_t>(mib, 1) << 20);
  std::printf("}\n");
  return 0;
}
