// Question: what does it cost to hand a call from one stage to the next?
// Unit: time per element; "between threads" is throughput seen by the producer
//   with a consumer on another thread.
// Baseline: a mutex around a deque, in the same program.
#include <benchmark/benchmark.h>
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>

#include "pos/queue/spsc_ring.h"

namespace pos {
namespace {

using Ring = SpscRing<std::uint64_t, 4096>;

class LockedDeque {
 public:
  bool TryPush(std::uint64_t& value) {
    const std::lock_guard lock(mu_);
    if (items_.size() == 4096) return false;
    items_.push_back(value);
    return true;
  }
  bool TryPop(std::uint64_t* out) {
    const std::lock_guard lock(mu_);
    if (items_.empty()) return false;
    *out = items_.front();
    items_.pop_front();
    return true;
  }

 private:
  std::mutex mu_;
  std::deque<std::uint64_t> items_;
};

template <typename Queue>
void OneThread(benchmark::State& state) {
  Queue queue;
  std::uint64_t value = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(queue.TryPush(value));
    benchmark::DoNotOptimize(queue.TryPop(&value));
  }
}

template <typename Queue>
void BetweenThreads(benchmark::State& state) {
  Queue queue;
  std::atomic<bool> end{false};
  std::thread consumer([&] {
    std::uint64_t value = 0;
    while (!end.load(std::memory_order_relaxed)) {
      if (!queue.TryPop(&value)) ::sched_yield();
    }
  });
  std::uint64_t value = 0;
  for (auto _ : state) {
    while (!queue.TryPush(value)) ::sched_yield();
  }
  end.store(true);
  consumer.join();
}

BENCHMARK(OneThread<Ring>);
BENCHMARK(OneThread<LockedDeque>);
BENCHMARK(BetweenThreads<Ring>)->UseRealTime();
BENCHMARK(BetweenThreads<LockedDeque>)->UseRealTime();

}  // namespace
}  // namespace pos
