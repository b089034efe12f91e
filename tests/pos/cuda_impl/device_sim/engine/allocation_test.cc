// Commands allocate nothing once the engine has seen as many at a time.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/pos/cuda_impl/device_sim/engine/engine_fixture.h"

namespace {
std::atomic<std::uint64_t> g_allocations{0};
}  // namespace

void* operator new(std::size_t bytes) {
  ++g_allocations;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace pos::sim {
namespace {

class LastTokenSink : public CompletionSink {
 public:
  void OnComplete(std::uint64_t token, DeviceError) override {
    last_.store(token, std::memory_order_release);
  }
  void OnDeviceOutput(OutputKind, std::string_view) override {}
  void Await(std::uint64_t token) const {
    const Deadline deadline = Deadline::AfterMs(60000);
    while (last_.load(std::memory_order_acquire) != token) {
      ASSERT_FALSE(deadline.Passed());
      std::this_thread::yield();
    }
  }

 private:
  std::atomic<std::uint64_t> last_{0};
};

// One grid for all launches: what the interpreter allocates is its own matter.
class SharedKernel : public GridSource {
 public:
  class Finished : public Grid {
   public:
    Step Run(GridWorker*, std::uint64_t) override { return Step::kFinished; }
    bool HasWork() const override { return false; }
    void Cancel() override {}
    GridFault fault() const override { return {}; }
    void* operator new(std::size_t bytes) { return std::malloc(bytes); }
    void operator delete(void* memory) { std::free(memory); }
  };
  Result<std::unique_ptr<Grid>> Start(const LaunchConfig&,
                                      std::span<const std::byte>) override {
    return std::unique_ptr<Grid>(new Finished);
  }
  const std::string& name() const override { return name_; }

 private:
  const std::string name_ = "finished";
};

using AllocationTest = EngineTest;

TEST_F(AllocationTest, SteadyStateAllocatesNothing) {
  LastTokenSink sink;
  ContextState* context = engine_->OpenContext(&sink);
  StreamState* a = engine_->NewStream(context, true, 0);
  StreamState* b = engine_->NewStream(context, false, 0);
  const auto kernel = std::make_shared<SharedKernel>();
  const std::array<std::byte, 200> params{};
  Record* event = nullptr;
  std::uint64_t token = 0;
  const auto round = [&] {
    for (int i = 0; i < 500; ++i) {
      engine_->SubmitCopy(a, kArena, kArena + 4096, 64, 0);
      engine_->SubmitFill(b, {kArena + 8192, 1, 4, 16, 2, 256}, 0);
      engine_->SubmitLaunch(a, kernel, {}, params, 0);
      engine_->SubmitRecord(a, &event, 0);
      engine_->SubmitWait(b, event, 0);
      engine_->SubmitToRecord(context, event, 0);
      engine_->SubmitNotify(context->default_stream, 0);
      engine_->SubmitLaunch(context->default_stream, kernel, {}, params, 0);
    }
    engine_->SubmitIdle(context, ++token);
    sink.Await(token);
  };
  // The most that is queued at a time varies with the threads' progress, so
  // fill the pools with everything held up first.
  Flag release;
  engine_->SubmitLaunch(context->default_stream,
                        std::make_shared<FakeKernel>(
                            [&release](unsigned) { return release.IsSet(); }),
                        {}, {}, 0);
  for (int i = 0; i < 2; ++i) {
    engine_->SubmitNotify(context->default_stream, 0);
  }
  std::thread opener([&release] {
    SleepNs(100000000);
    release.Set();
  });
  round();
  opener.join();
  round();
  const std::uint64_t before = g_allocations;
  for (int i = 0; i < 5; ++i) round();
  EXPECT_EQ(g_allocations - before, 0u);
  engine_->ReleaseRecord(event);
  engine_->CloseContext(context);
}

}  // namespace
}  // namespace pos::sim
