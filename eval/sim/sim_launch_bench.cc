// Question: what does a launch of a kernel that does nothing cost inside the
//   runner, from the ring to the answer; what does code cost that is loaded for
//   the first time and again?
// Unit: microseconds. "alone": a launch and a synchronization, both through the
//   ring, the client looking for the answer all the time. "in bursts": time a
//   launch of N launches and one synchronization.
// Baseline: the same calls with a synchronization of an idle stream only ("no
//   launch"), in the same run.
#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "eval/support/report.h"
#include "eval/support/session.h"
#include "pos/base/clock.h"
#include "pos/cuda_impl/device_sim/sim_device.h"
#include "pos/runner/tmpfs_window.h"

namespace pos::eval {
namespace {

constexpr std::string_view kEmpty =
    ".version 8.0\n.target sm_90\n.address_size 64\n"
    ".visible .entry empty() { ret; }\n";

double Us(std::uint64_t ns) { return static_cast<double>(ns) / 1e3; }

std::unique_ptr<Device> MakeSim(const cuda::ArenaLayout& layout) {
  sim::SimOptions options;
  options.memory_bytes = 1 << 30;
  options.arena_base = layout.PartBase(0);
  options.arena_bytes = layout.PartBytes();
  Result<std::unique_ptr<Device>> device = sim::NewSimDevice(options);
  Check(device.ok(), "create a simulated device");
  return std::move(*device);
}

class Bench {
 public:
  explicit Bench(int stage_threads)
      : arena_(Reserve()),
        session_(stage_threads, MakeSim(NullSession::Layout())),
        client_(&session_, 0) {
    context_ = client_.MakeContext();
  }

  std::uint64_t LoadModule(std::string_view text) {
    Check(client_.Call(cuda::BlobCreateArgs{.bytes = text.size() + 1}, {}) == 0,
          "make a blob");
    const auto blob = client_.Result<cuda::BlobCreateOut>().blob;
    for (std::size_t at = 0; at < text.size(); at += kPiece) {
      const std::string_view piece = text.substr(at, kPiece);
      Check(client_.Call(
                cuda::BlobPutArgs{
                    .blob = blob, .offset = at, .bytes = piece.size()},
                std::as_bytes(std::span(piece))) == 0,
            "fill a blob");
    }
    const std::uint64_t start = MonotonicNs();
    Check(client_.Call(
              cuda::ModuleLoadArgs{.context = context_.context, .blob = blob},
              {}) == 0,
          "load a module");
    load_ns_ = MonotonicNs() - start;
    return client_.Result<cuda::ModuleLoadOut>().module;
  }
  // What the runner took for the last LoadModule, without the upload.
  [[nodiscard]] std::uint64_t load_ns() const { return load_ns_; }

  std::uint64_t Function(std::uint64_t module, std::string_view name) {
    Check(client_.Call(cuda::ModuleFunctionArgs{.module = module},
                       std::as_bytes(std::span(name)), true) == 0,
          "find a kernel");
    return client_.Result<cuda::ModuleFunctionOut>().function;
  }
  void Launch(std::uint64_t function, std::uint32_t blocks) {
    client_.Post(cuda::LaunchArgs{.stream = context_.stream,
                                  .function = function,
                                  .grid_x = blocks,
                                  .grid_y = 1,
                                  .grid_z = 1,
                                  .block_x = 32,
                                  .block_y = 1,
                                  .block_z = 1,
                                  .shared_bytes = 0,
                                  .cooperative = 0});
  }
  void Sync() {
    Check(client_.Call(
              cuda::StreamSynchronizeArgs{.stream = context_.stream}) == 0,
          "synchronize");
  }

 private:
  static constexpr std::size_t kPiece = 8192;
  static ReservedRange Reserve() {
    const cuda::ArenaLayout layout = NullSession::Layout();
    Result<ReservedRange> range =
        ReservedRange::At(layout.arena_base, layout.arena_bytes);
    Check(range.ok(), "reserve the arena");
    return std::move(*range);
  }

  const ReservedRange arena_;
  NullSession session_;
  NullClient client_;
  cuda::CtxCreateOut context_;
  std::uint64_t load_ns_ = 0;
};

void Report(const std::string& what, std::vector<double> us,
            const char* target = "") {
  Row(what + ", median", Quantile(us, 0.5), "us", target);
  Row(what + ", 99th", Quantile(us, 0.99), "us");
}

void Launches(int stage_threads, int rounds) {
  Bench bench(stage_threads);
  const std::uint64_t empty = bench.Function(bench.LoadModule(kEmpty), "empty");
  for (int i = 0; i < 200; ++i) bench.Launch(empty, 1);
  bench.Sync();
  const std::string who = std::to_string(stage_threads) + " stage threads, ";
  const auto measure = [&](int launches, std::uint32_t blocks, int times) {
    std::vector<double> us;
    for (int i = 0; i < times; ++i) {
      const std::uint64_t start = MonotonicNs();
      for (int l = 0; l < launches; ++l) bench.Launch(empty, blocks);
      bench.Sync();
      us.push_back(Us(MonotonicNs() - start) / std::max(launches, 1));
    }
    return us;
  };
  Report(who + "no launch", measure(0, 1, rounds));
  Report(who + "launch, alone", measure(1, 1, rounds));
  Report(who + "launch, in bursts of 64", measure(64, 1, rounds / 10 + 1),
         "<= 3");
  Report(who + "launch, in bursts of 1000", measure(1000, 1, rounds / 200 + 1),
         "<= 3");
  Row(who + "a block of one warp",
      Quantile(measure(1, 20000, rounds / 200 + 1), 0.5) * 1e3 / 20000, "ns");
}

// A module of `kernels` kernels of some 100 instructions each.
std::string Large(int kernels, int variant) {
  std::string text = ".version 8.0\n.target sm_90\n.address_size 64\n";
  for (int k = 0; k < kernels; ++k) {
    text += ".visible .entry k" + std::to_string(k) +
            "(.param .u64 p) {\n.reg .b32 %r<101>;\n.reg .b64 %d;\n"
            "ld.param.u64 %d, [p];\nmov.u32 %r0, " +
            std::to_string(variant) + ";\n";
    for (int i = 0; i < 100; ++i) {
      text += "mad.lo.u32 %r" + std::to_string(i + 1) + ", %r" +
              std::to_string(i) + ", 3, " + std::to_string(k) + ";\n";
    }
    text += "st.global.u32 [%d], %r100;\nret;\n}\n";
  }
  return text;
}

void Modules(int kernels, int rounds) {
  Bench bench(1);
  std::vector<double> first;
  std::vector<double> again;
  for (int i = 0; i < rounds; ++i) {
    const std::string text = Large(kernels, i);
    bench.LoadModule(text);
    first.push_back(Us(bench.load_ns()));
    bench.LoadModule(text);
    again.push_back(Us(bench.load_ns()));
  }
  const std::string who = std::to_string(kernels) + " kernels, " +
                          std::to_string(Large(kernels, 0).size() / 1000) +
                          " kB: ";
  Row(who + "first load", Quantile(first, 0.5), "us");
  Row(who + "the same content again", Quantile(again, 0.5), "us");
}

// A kernel's first launch, which decodes it. A launch before it has woken the
// device's threads.
void FirstLaunch(int rounds) {
  Bench bench(1);
  const std::uint64_t empty = bench.Function(bench.LoadModule(kEmpty), "empty");
  std::vector<double> first;
  std::vector<double> again;
  std::vector<double> later;
  std::string text = ".version 8.0\n.target sm_90\n.address_size 64\n";
  for (int i = 0; i < rounds; ++i) {
    std::string body = text + ".visible .entry k() {\n.reg .b32 %r<2001>;\n";
    for (int n = 0; n < 2000; ++n) {
      body += "mad.lo.u32 %r" + std::to_string(n + 1) + ", %r" +
              std::to_string(n) + ", 3, " + std::to_string(i) + ";\n";
    }
    body += "ret;\n}\n";
    for (std::vector<double>* us : {&first, &again}) {
      const std::uint64_t k = bench.Function(bench.LoadModule(body), "k");
      bench.Launch(empty, 1);
      bench.Sync();
      const std::uint64_t start = MonotonicNs();
      bench.Launch(k, 1);
      bench.Sync();
      us->push_back(Us(MonotonicNs() - start));
      if (us == &first) continue;
      const std::uint64_t then = MonotonicNs();
      bench.Launch(k, 1);
      bench.Sync();
      later.push_back(Us(MonotonicNs() - then));
    }
  }
  Row("first launch of 2,000 instructions", Quantile(first, 0.5), "us");
  Row("of the same content loaded again", Quantile(again, 0.5), "us");
  Row("its second launch", Quantile(later, 0.5), "us");
}

}  // namespace
}  // namespace pos::eval

int main(int argc, char** argv) {
  const bool smoke = pos::eval::IsSmoke(argc, argv);
  for (const int threads : {1, 2}) {
    pos::eval::Launches(threads, smoke ? 10 : 4000);
  }
  for (const int kernels : {1, 100, 1000}) {
    pos::eval::Modules(kernels, smoke ? 1 : 10);
  }
  pos::eval::FirstLaunch(smoke ? 2 : 50);
}
