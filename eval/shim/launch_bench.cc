// Question: what does an asynchronous driver call cost a program that calls
//   the client library?
// Unit: nanoseconds per call over bursts of 64, median and 99th percentile;
//   microseconds for a call after idleness and for a synchronizing one.
// Baseline: pipeline_bench, the same without the library.
// The library is linked into this program, whose other threads are the runner
// with a device that does nothing. What a program adds through cudart is not in
// it.
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "eval/support/report.h"
#include "eval/support/session.h"
#include "pos/base/clock.h"
#include "pos/base/fd.h"
#include "pos/runner/client_link.h"
#include "remoting/shim/driver.h"

namespace pos::eval {
namespace {

// posd and the control loop of a runner, as far as one client needs them.
class Runner {
 public:
  Runner() : path_("/tmp/pos-launch-bench-" + std::to_string(::getpid())) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    listener_.Reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    Check(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address),
                 sizeof(address)) == 0 &&
              ::listen(listener_.get(), 1) == 0,
          "listen");
    ::setenv("POS_ATTACH", path_.c_str(), 1);
    thread_ = std::thread([this] { Serve(); });
  }
  ~Runner() {
    end_.store(true);
    thread_.join();
    ::unlink(path_.c_str());
  }

 private:
  void Serve() {
    UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    wire::AttachRequest request;
    Check(::recv(socket.get(), &request, sizeof(request), 0) == sizeof(request),
          "an attaching client");
    UniqueFd host(::memfd_create("host", MFD_CLOEXEC));
    Check(::ftruncate(host.get(), static_cast<off_t>(
                                      NullSession::Layout().host_bytes)) == 0,
          "a host window");
    ClientLink link;
    Check(link.Accept(std::move(socket), *session_.ring(), host.get(),
                      NullSession::Layout(), 1, 1)
              .ok(),
          "accept");
    while (!end_.load() && link.connected()) {
      pollfd p{link.fd(), POLLIN, 0};
      if (::poll(&p, 1, 50) > 0) link.Read();
    }
  }

  const std::string path_;
  UniqueFd listener_;
  NullSession session_{0};
  std::atomic<bool> end_{false};
  std::thread thread_;
};

void Must(CUresult result, const char* what) {
  if (result == CUDA_SUCCESS) return;
  std::fprintf(stderr, "%s: error %d\n", what, result);
  std::exit(1);
}

template <typename Body>
void Bursts(const char* what, int bursts, const char* target,
            const Body& body) {
  constexpr int kBurst = 64;
  std::vector<double> samples;
  for (int b = 0; b < bursts; ++b) {
    const std::uint64_t before = MonotonicNs();
    for (int i = 0; i < kBurst; ++i) body();
    samples.push_back(static_cast<double>(MonotonicNs() - before) / kBurst);
    Must(cuCtxSynchronize(), "synchronize");
  }
  Row(std::string(what) + ", bursts of 64, median", Quantile(samples, 0.5),
      "ns", target);
  Row(std::string(what) + ", bursts of 64, 99th", Quantile(samples, 0.99),
      "ns");
}

template <typename Body>
void Apart(const std::string& what, std::uint64_t gap_us, int rounds,
           const char* target, const Body& body) {
  std::vector<double> samples;
  for (int i = 0; i < rounds; ++i) {
    if (gap_us != 0) SleepNs(gap_us * 1000);
    const std::uint64_t before = MonotonicNs();
    body();
    samples.push_back(static_cast<double>(MonotonicNs() - before) / 1e3);
  }
  Row(what + ", median", Quantile(samples, 0.5), "us", target);
  Row(what + ", 99th", Quantile(samples, 0.99), "us");
}

void Run(bool smoke) {
  Must(cuInit(0), "cuInit");
  CUcontext context = nullptr;
  Must(cuDevicePrimaryCtxRetain(&context, 0), "retain");
  Must(cuCtxSetCurrent(context), "set current");
  CUmodule module = nullptr;
  CUfunction function = nullptr;
  Must(cuModuleLoadData(&module, ".version 8.0\n.target sm_90\n"), "load");
  Must(cuModuleGetFunction(&function, module, "kernel"), "find");
  CUevent event = nullptr;
  Must(cuEventCreate(&event, 0), "event");

  const auto launch = [function] {
    Must(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr,
                        nullptr),
         "launch");
  };
  Bursts("launch", smoke ? 20 : 20000, "<= 150", launch);
  Bursts("event record", smoke ? 20 : 20000, "<= 150",
         [event] { Must(cuEventRecord(event, nullptr), "record"); });
  Apart("launch after 2 ms of idleness", 2000, smoke ? 3 : 500, "<= 6", launch);
  const auto synchronize = [] { Must(cuCtxSynchronize(), "synchronize"); };
  Apart("synchronize, back to back", 0, smoke ? 100 : 100000, "<= 4",
        synchronize);
  Apart("synchronize, 200 us apart", 200, smoke ? 5 : 3000, "<= 8",
        synchronize);
}

}  // namespace
}  // namespace pos::eval

int main(int argc, char** argv) {
  pos::eval::Runner runner;
  pos::eval::Run(pos::eval::IsSmoke(argc, argv));
  return 0;
}
