// A session on a simulated device of its own, as in a runner.
#ifndef POS_TESTS_SUPPORT_SIM_SESSION_H_
#define POS_TESTS_SUPPORT_SIM_SESSION_H_

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "pos/cuda_impl/device_sim/sim_device.h"
#include "tests/support/test_session.h"

namespace pos {

class SimSession {
 public:
  // `place`: several at once lie at several addresses, 0 to 63.
  explicit SimSession(int stage_threads, int place = 0)
      : options_(TestOptions(stage_threads, place)),
        arena_(Reserve(options_)),
        device_(MakeDevice(options_)),
        session_(options_, {device_.get()}) {
    session_->Start();
  }
  TestSession& operator*() { return session_; }
  Session* operator->() { return &*session_; }
  TestSession& session() { return session_; }
  Device& device() { return *device_; }
  RingServer* ring() { return session_.ring(); }
  TestLedger& ledger() { return session_.ledger(); }

 private:
  static ReservedRange Reserve(const SessionOptions& options) {
    Result<ReservedRange> range = ReservedRange::At(options.layout.arena_base,
                                                    options.layout.arena_bytes);
    EXPECT_TRUE(range.ok()) << range.status().ToString();
    return std::move(*range);
  }
  static std::unique_ptr<Device> MakeDevice(const SessionOptions& options) {
    sim::SimOptions sim;
    sim.memory_bytes = 256 << 20;
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
