// An engine with memory, kernels written in C++, and a sink that remembers.
#ifndef POS_TESTS_POS_CUDA_IMPL_DEVICE_SIM_ENGINE_ENGINE_FIXTURE_H_
#define POS_TESTS_POS_CUDA_IMPL_DEVICE_SIM_ENGINE_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/mutex.h"
#include "pos/cuda_impl/device_sim/engine/engine.h"

namespace pos::sim {

// Under ThreadSanitizer only such addresses are free for a fixed mapping.
inline constexpr std::uint64_t kArena = 0x7e8000000000;
inline constexpr std::uint64_t kArenaBytes = 1ull << 30;
inline constexpr std::uint64_t kGranule = Device::kMapGranularity;

class RecordingSink : public CompletionSink {
 public:
  void OnComplete(std::uint64_t token, DeviceError error) override {
    const MutexLock lock(&mu_);
    ++times_[token];
    errors_[token] = error;
    order_.push_back(token);
    changed_.NotifyAll();
  }
  void OnDeviceOutput(OutputKind, std::string_view text) override {
    const MutexLock lock(&mu_);
    output_ += text;
  }

  // The error; -1 when nothing came within a minute.
  DeviceError Await(std::uint64_t token) {
    const Deadline deadline = Deadline::AfterMs(60000);
    const MutexLock lock(&mu_);
    while (times_.count(token) == 0 && !deadline.Passed()) {
      changed_.WaitFor(&mu_, std::chrono::milliseconds(100));
    }
    return times_.count(token) == 0 ? -1 : errors_[token];
  }
  int Times(std::uint64_t token) {
    const MutexLock lock(&mu_);
    return times_.count(token) == 0 ? 0 : times_[token];
  }
  std::vector<std::uint64_t> Order() {
    const MutexLock lock(&mu_);
    return order_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::map<std::uint64_t, int> times_ POS_GUARDED_BY(mu_);
  std::map<std::uint64_t, DeviceError> errors_ POS_GUARDED_BY(mu_);
  std::vector<std::uint64_t> order_ POS_GUARDED_BY(mu_);
  std::string output_ POS_GUARDED_BY(mu_);
};

// A kernel of `blocks` blocks; each is run by one thread at a time, again and
// again until `block` returns true.
class FakeKernel : public GridSource {
 public:
  using Block = std::function<bool(unsigned index)>;
  explicit FakeKernel(Block block, unsigned blocks = 1, DeviceError fault = 0)
      : block_(std::move(block)), blocks_(blocks), fault_(fault) {}

  Result<std::unique_ptr<Grid>> Start(const LaunchConfig& config,
                                      std::span<const std::byte>) override;
  const std::string& name() const override { return name_; }

 private:
  friend class FakeGrid;
  const std::string name_ = "fake";
  const Block block_;
  const unsigned blocks_;
  const DeviceError fault_;
};

class FakeGrid : public Grid {
 public:
  explicit FakeGrid(FakeKernel* kernel) : kernel_(kernel) {
    for (unsigned i = 0; i < kernel->blocks_; ++i) waiting_.push_back(i);
    left_ = kernel->blocks_;
  }

  Step Run(GridWorker*, std::uint64_t) override {
    unsigned block = 0;
    {
      const MutexLock lock(&mu_);
      if (cancelled_ && !finished_ && running_ == 0) {
        finished_ = true;
        return Step::kFinished;
      }
      if (finished_ || cancelled_ || waiting_.empty()) {
        return Step::kNothingForYou;
      }
      block = waiting_.front();
      waiting_.erase(waiting_.begin());
      ++running_;
    }
    const bool done = kernel_->block_(block);
    const MutexLock lock(&mu_);
    --running_;
    if (done) {
      --left_;
    } else {
      waiting_.push_back(block);
    }
    if (finished_) return Step::kNothingForYou;
    if (running_ == 0 && (left_ == 0 || cancelled_)) {
      finished_ = true;
      return Step::kFinished;
    }
    return waiting_.empty() || cancelled_ ? Step::kNothingForYou : Step::kMore;
  }
  bool HasWork() const override {
    const MutexLock lock(&mu_);
    return !finished_ && (!waiting_.empty() || (cancelled_ && running_ == 0));
  }
  void Cancel() override {
    const MutexLock lock(&mu_);
    cancelled_ = true;
  }
  GridFault fault() const override {
    GridFault fault;
    fault.error = kernel_->fault_;
    fault.text = "as the test asked for";
    return fault;
  }

 private:
  FakeKernel* const kernel_;
  mutable Mutex mu_;
  std::vector<unsigned> waiting_ POS_GUARDED_BY(mu_);
  unsigned running_ POS_GUARDED_BY(mu_) = 0;
  unsigned left_ POS_GUARDED_BY(mu_) = 0;
  bool cancelled_ POS_GUARDED_BY(mu_) = false;
  bool finished_ POS_GUARDED_BY(mu_) = false;
};

inline Result<std::unique_ptr<Grid>> FakeKernel::Start(
    const LaunchConfig&, std::span<const std::byte>) {
  return std::unique_ptr<Grid>(std::make_unique<FakeGrid>(this));
}

// A latch that kernels poll.
class Flag {
 public:
  void Set() { set_.store(true, std::memory_order_release); }
  [[nodiscard]] bool IsSet() const {
    return set_.load(std::memory_order_acquire);
  }

 private:
  std::atomic<bool> set_{false};
};

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    void* got = ::mmap(
        reinterpret_cast<void*>(kArena), kArenaBytes, PROT_NONE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
        0);
    ASSERT_EQ(got, reinterpret_cast<void*>(kArena));
    auto memory = SimMemory::Create(kArena, kArenaBytes, kArenaBytes);
    ASSERT_TRUE(memory.ok()) << memory.status().ToString();
    memory_ = *std::move(memory);
    ASSERT_TRUE(memory_->Map(kArena, 16 * kGranule).ok());
    memory_->AddAllocation(kArena, 16 * kGranule);
    Start({});
  }
  void Start(EngineOptions options) {
    if (context_ != nullptr) engine_->CloseContext(context_);
    engine_.reset();
    auto engine = Engine::Create(std::move(options), memory_.get());
    ASSERT_TRUE(engine.ok()) << engine.status().ToString();
    engine_ = *std::move(engine);
    context_ = engine_->OpenContext(&sink_);
  }
  void TearDown() override {
    if (context_ != nullptr) engine_->CloseContext(context_);
    engine_.reset();
    memory_.reset();
    ::munmap(reinterpret_cast<void*>(kArena), kArenaBytes);
  }

  StreamState* Blocking(std::int32_t priority = 0) {
    return engine_->NewStream(context_, true, priority);
  }
  StreamState* NonBlocking(std::int32_t priority = 0) {
    return engine_->NewStream(context_, false, priority);
  }
  void Launch(StreamState* stream, FakeKernel::Block block,
              std::uint64_t token = 0, unsigned blocks = 1,
              DeviceError fault = 0) {
    LaunchConfig config;
    config.grid[0] = blocks;
    engine_->SubmitLaunch(
        stream, std::make_shared<FakeKernel>(std::move(block), blocks, fault),
        config, {}, token);
  }
  // Spins until `flag` is set.
  void LaunchWaiting(StreamState* stream, const Flag* flag,
                     std::uint64_t token = 0) {
    Launch(
        stream, [flag](unsigned) { return flag->IsSet(); }, token);
  }
  // Everything submitted so far is over; its error.
  DeviceError Drain() {
    const std::uint64_t token = next_token_++;
    engine_->SubmitIdle(context_, token);
    return sink_.Await(token);
  }

  RecordingSink sink_;
  std::unique_ptr<SimMemory> memory_;
  std::unique_ptr<Engine> engine_;
  ContextState* context_ = nullptr;
  std::uint64_t next_token_ = 1u << 30;
};

}  // namespace pos::sim

#endif  // POS_TESTS_POS_CUDA_IMPL_DEVICE_SIM_ENGINE_ENGINE_FIXTURE_H_
