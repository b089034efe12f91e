// pos-runner: serves one session. Started by posd, never by hand.
#include <sys/personality.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "pos/base/log.h"
#include "pos/cuda_impl/device_cuda/cuda_device.h"
#include "pos/runner/controller.h"

namespace {

// Sessions own fixed address ranges; with randomized addresses a library might
// land in one. Takes effect at the next exec.
void DisableAddressRandomization(char** argv) {
  const int persona = ::personality(0xffffffff);
  if (persona < 0 || (persona & ADDR_NO_RANDOMIZE) != 0) return;
  if (::personality(static_cast<unsigned long>(persona) | ADDR_NO_RANDOMIZE) <
      0) {
    return;
  }
  ::execv("/proc/self/exe", argv);
}

}  // namespace

namespace {

// What posd asks before it has a runner: one line a device, its fields divided
// by tabs, or one line that begins with "!" and says why there are none. In a
// process of its own, since a driver may hang or fault.
int ProbeCuda(const char* library) {
  const auto devices = pos::cuda_device::ListCudaDevices(library);
  if (!devices.ok()) {
    std::printf("!%s\t%s\n", devices.status().message().c_str(),
                devices.status().hint().c_str());
    return 1;
  }
  for (const pos::DeviceInfo& device : *devices) {
    const auto attribute = [&device](int number) {
      for (const auto& [n, value] : device.attributes) {
        if (n == number) return value;
      }
      return 0;
    };
    // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR,
    // _MULTIPROCESSOR_COUNT.
    std::printf("%s\t%llu\t%d\t%d\n", device.name.c_str(),
                static_cast<unsigned long long>(device.memory_bytes),
                attribute(75) * 10 + attribute(76), attribute(16));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int channel = -1;
  for (int i = 1; i + 1 < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--probe-cuda") return ProbeCuda(argv[i + 1]);
    if (option == "--channel") channel = std::atoi(argv[i + 1]);
    if (option == "--log-level") {
      pos::LogLevel level = pos::LogLevel::kInfo;
      if (pos::ParseLogLevel(argv[i + 1], &level)) pos::SetLogLevel(level);
    }
  }
  if (channel < 0) {
    std::fprintf(stderr, "pos-runner is started by posd\n");
    return 2;
  }
  DisableAddressRandomization(argv);
  // For ps(1); after an exec of /proc/self/exe the kernel calls it "exe".
  ::prctl(PR_SET_NAME, "pos-runner");
  pos::SetLogName("pos-runner");
  if (!pos::SetCloseOnExec(channel, true).ok()) {
    std::fprintf(stderr, "pos-runner: descriptor %d is not open\n", channel);
    return 2;
  }
  pos::Controller controller{pos::UniqueFd(channel)};
  return controller.Run();
}
