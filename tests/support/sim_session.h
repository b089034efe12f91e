// A session on a simulated device of its own, as in a runner.
#ifndef POS_TESTS_SUPPORT_SIM_SESSION_H_
#define POS_TESTS_SUPPORT_SIM_SESSION_H_

#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <utility>

#include "pos/cuda_impl/device_sim/sim_device.h"
#include "tests/support/test_session.h"

namespace pos {

class SimSession {
 public:
  // `place`: several at once lie at several addresses, 0 to 63.
  explicit SimSession(int stage_threads, int place = 0)
      : SimSession(TestOptions(stage_threads, place), 256 << 20, 1 << 30) {}
  SimSession(const SessionOptions& options, std::uint64_t memory_bytes,
             std::uint64_t ledger_bytes)
      : SimSession(options, memory_bytes, ledger_bytes, nullptr) {
    session_->Start();
  }
  // Not started: an image is to be loaded.
  SimSession(int stage_threads, int place, std::nullptr_t)
      : SimSession(TestOptions(stage_threads, place), 256 << 20, 1 << 30,
                   nullptr) {}
  TestSession& operator*() { return session_; }
  Session* operator->() { return &*session_; }
  TestSession& session() { return session_; }
  Device& device() { return *device_; }
  RingServer* ring() { return session_.ring(); }
  TestLedger& ledger() { return session_.ledger(); }

 private:
  SimSession(const SessionOptions& options, std::uint64_t memory_bytes,
             std::uint64_t ledger_bytes, std::nullptr_t)
      : options_(options),
        arena_(Reserve(options_)),
        device_(MakeDevice(options_, memory_bytes)),
        session_(options_, {device_.get()}, ledger_bytes) {}
  static ReservedRange Reserve(const SessionOptions& options) {
    Result<ReservedRange> range = ReservedRange::At(options.layout.arena_base,
                                                    options.layout.arena_bytes);
    EXPECT_TRUE(range.ok()) << range.status().ToString();
    return std::move(*range);
  }
  static std::unique_ptr<Device> MakeDevice(const SessionOptions& options,
                                            std::uint64_t memory_bytes) {
    sim::SimOptions sim;
    sim.memory_bytes = memory_bytes;
    sim.compute_threads = 1;
    sim.arena_base = options.layout.PartBase(0);
    sim.arena_bytes = options.layout.PartBytes();
    Result<std::unique_ptr<Device>> device = sim::NewSimDevice(sim);
    EXPECT_TRUE(device.ok()) << device.status().ToString();
    return std::move(*device);
  }

  const SessionOptions options_;
  const ReservedRange arena_;
  const std::unique_ptr<Device> device_;
  TestSession session_;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_SIM_SESSION_H_
