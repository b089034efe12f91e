// What the simulated device's engine costs, kernels left out.
//
// Question: how long from a submission to its completion, what does a
//   submission cost its caller, and does either grow with the number of
//   streams or the depth of the queue?
// Unit: time per command as Google Benchmark prints it. An "empty kernel" ends
//   at its first instruction; it goes through a compute thread.
// Baseline: RoundTripBetweenThreads, two threads that hand a word to and fro
//   with the same way of waiting: no engine on another thread can be faster.
#include <benchmark/benchmark.h>
#include <sched.h>
#include <sys/mman.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/futex.h"
#include "pos/cuda_impl/device_sim/engine/engine.h"

namespace pos::sim {
namespace {

constexpr std::uint64_t kArena = 0x7e8000000000;
constexpr std::uint64_t kArenaBytes = 64u << 20;

class CountingSink : public CompletionSink {
 public:
  void OnComplete(std::uint64_t token, DeviceError) override {
    last_.store(token, std::memory_order_release);
  }
  void OnDeviceOutput(OutputKind, std::string_view) override {}
  void Await(std::uint64_t token) const {
    for (;;) {
      for (int i = 0; i < 30; ++i) {
        if (last_.load(std::memory_order_acquire) == token) return;
        CpuPause();
      }
      ::sched_yield();
    }
  }

 private:
  std::atomic<std::uint64_t> last_{0};
};

class EmptyGrid : public Grid {
 public:
  Step Run(GridWorker*, std::uint64_t) override { return Step::kFinished; }
  bool HasWork() const override { return false; }
  void Cancel() override {}
  GridFault fault() const override { return {}; }
};

class EmptyKernel : public GridSource {
 public:
  Result<std::unique_ptr<Grid>> Start(const LaunchConfig&,
                                      std::span<const std::byte>) override {
    return std::unique_ptr<Grid>(std::make_unique<EmptyGrid>());
  }
  const std::string& name() const override { return name_; }

 private:
  const std::string name_ = "empty";
};

struct Fixture {
  Fixture() {
    ::mmap(reinterpret_cast<void*>(kArena), kArenaBytes, PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
           -1, 0);
    memory = *SimMemory::Create(kArena, kArenaBytes, kArenaBytes);
    memory->Map(kArena, kArenaBytes).IgnoreError();
    memory->AddAllocation(kArena, kArenaBytes);
    engine = *Engine::Create({}, memory.get());
    context = engine->OpenContext(&sink);
    kernel = std::make_shared<EmptyKernel>();
  }
  ~Fixture() {
    engine->CloseContext(context);
    engine.reset();
    memory.reset();
    ::munmap(reinterpret_cast<void*>(kArena), kArenaBytes);
  }
  void Launch(StreamState* stream, std::uint64_t id) {
    engine->SubmitLaunch(stream, kernel, {}, params, id);
  }

  CountingSink sink;
  std::unique_ptr<SimMemory> memory;
  std::unique_ptr<Engine> engine;
  ContextState* context = nullptr;
  std::shared_ptr<EmptyKernel> kernel;
  std::array<std::byte, 64> params{};
  std::uint64_t token = 0;
};

void RoundTripBetweenThreads(benchmark::State& state) {
  std::atomic<std::uint64_t> ping{0};
  std::atomic<std::uint64_t> pong{0};
  const auto await = [](const std::atomic<std::uint64_t>& word,
                        std::uint64_t value) {
    for (;;) {
      for (int i = 0; i < 30; ++i) {
        if (word.load(std::memory_order_acquire) >= value) return;
        CpuPause();
      }
      ::sched_yield();
    }
  };
  constexpr std::uint64_t kStop = ~0ull;
  std::thread other([&] {
    for (std::uint64_t i = 1;; ++i) {
      await(ping, i);
      if (ping.load(std::memory_order_relaxed) == kStop) return;
      pong.store(i, std::memory_order_release);
    }
  });
  std::uint64_t i = 0;
  for (auto _ : state) {
    ping.store(++i, std::memory_order_release);
    await(pong, i);
  }
  ping.store(kStop, std::memory_order_release);
  other.join();
}
BENCHMARK(RoundTripBetweenThreads)->UseRealTime();

void EmptyKernelLaunchToCompletion(benchmark::State& state) {
  Fixture f;
  StreamState* stream = f.engine->NewStream(f.context, false, 0);
  for (auto _ : state) {
    f.Launch(stream, ++f.token);
    f.sink.Await(f.token);
  }
}
BENCHMARK(EmptyKernelLaunchToCompletion)->UseRealTime();

// The device sleeps in between: microseconds of pause, not counted.
void EmptyKernelAfterPause(benchmark::State& state) {
  Fixture f;
  StreamState* stream = f.engine->NewStream(f.context, false, 0);
  for (auto _ : state) {
    SleepNs(static_cast<std::uint64_t>(state.range(0)) * 1000);
    const std::uint64_t start = MonotonicNs();
    f.Launch(stream, ++f.token);
    f.sink.Await(f.token);
    state.SetIterationTime(static_cast<double>(MonotonicNs() - start) * 1e-9);
  }
}
BENCHMARK(EmptyKernelAfterPause)
    ->Arg(200)
    ->Arg(2000)
    ->Iterations(500)
    ->UseManualTime();

void SmallCopyToCompletion(benchmark::State& state) {
  Fixture f;
  StreamState* stream = f.engine->NewStream(f.context, false, 0);
  std::vector<char> host(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    f.engine->SubmitCopy(stream, kArena,
                         reinterpret_cast<std::uint64_t>(host.data()),
                         host.size(), ++f.token);
    f.sink.Await(f.token);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(SmallCopyToCompletion)
    ->Arg(64)
    ->Arg(4096)
    ->Arg(65536)
    ->Arg(16 << 20)
    ->UseRealTime();

void NotifyOfIdleStream(benchmark::State& state) {
  Fixture f;
  StreamState* stream = f.engine->NewStream(f.context, false, 0);
  for (auto _ : state) f.engine->SubmitNotify(stream, ++f.token);
}
BENCHMARK(NotifyOfIdleStream)->UseRealTime();

// Launches queued back to back, in bursts; time per launch, drain included.
void LaunchBurst(benchmark::State& state) {
  Fixture f;
  StreamState* stream = f.engine->NewStream(f.context, false, 0);
  const auto burst = static_cast<std::uint64_t>(state.range(0));
  for (auto _ : state) {
    for (std::uint64_t i = 1; i < burst; ++i) f.Launch(stream, 0);
    f.Launch(stream, ++f.token);
    f.sink.Await(f.token);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(LaunchBurst)->Arg(64)->Arg(1000)->Arg(100000)->UseRealTime();

// One default-stream command after one command on each of N blocking streams.
void LegacyBarrierOverStreams(benchmark::State& state) {
  Fixture f;
  std::vector<StreamState*> streams;
  for (std::int64_t i = 0; i < state.range(0); ++i) {
    streams.push_back(f.engine->NewStream(f.context, true, 0));
  }
  for (auto _ : state) {
    for (StreamState* stream : streams) f.engine->SubmitNotify(stream, 0);
    f.Launch(f.context->default_stream, ++f.token);
    f.sink.Await(f.token);
  }
  state.SetItemsProcessed(state.iterations() * (state.range(0) + 1));
}
BENCHMARK(LegacyBarrierOverStreams)->Arg(1)->Arg(100)->Arg(4000)->UseRealTime();

}  // namespace
}  // namespace pos::sim

BENCHMARK_MAIN();
