// Question: what does writing a call into the ring cost the caller, alone and
//   beside other threads that write, and how many frames can the ring carry?
// Unit: nanoseconds per frame (48 bytes of header, 56 of arguments) over bursts
//   of 64, median and 99th percentile of bursts; frames per second.
// Baseline: memcpy of a frame of that size.
// The consumer takes frames off, looks at nothing, and sleeps at the doorbell
// as a stage does.
#include <atomic>
#include <cstring>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "eval/support/report.h"
#include "pos/base/backoff.h"
#include "pos/base/clock.h"
#include "pos/runner/stage_thread.h"
#include "remoting/transport/shm/ring_client.h"
#include "remoting/transport/shm/ring_server.h"

namespace pos::eval {
namespace {

constexpr std::uint32_t kArgsBytes = 56;
constexpr int kBurst = 64;

class Drain : public Stage {
 public:
  explicit Drain(RingServer* ring) : ring_(ring) {}
  bool Step() override {
    std::uint32_t bytes = 0;
    bool progress = false;
    for (int i = 0; i < 64; ++i) {
      if (ring_->PeekSize(&bytes) != RingServer::NextResult::kFrame) break;
      ring_->Take(std::span(frame_).first(bytes));
      progress = true;
      taken.store(taken.load(std::memory_order_relaxed) + 1,
                  std::memory_order_release);
    }
    if (!progress) ring_->Publish();
    return progress;
  }
  bool Idle() override {
    std::uint32_t bytes = 0;
    return ring_->PeekSize(&bytes) == RingServer::NextResult::kNone;
  }
  std::atomic<std::uint64_t> taken{0};

 private:
  RingServer* const ring_;
  std::vector<std::byte> frame_ = std::vector<std::byte>(wire::kMaxFrameBytes);
};

void Send(RingClient* client) {
  wire::FrameHeader* const frame = client->Begin(1, kArgsBytes, 0);
  std::memset(RingClient::Args(frame), 1, kArgsBytes);
  client->Commit(frame);
}

void Measure(int producers, int bursts) {
  auto made = RingServer::Create(RingGeometry{});
  RingServer* const ring = made->get();
  Drain drain(ring);
  StageThread consumer("drain", {&drain}, &ring->doorbell(), kSpinNs);
  consumer.Start();
  std::vector<std::vector<double>> samples(static_cast<std::size_t>(producers));
  std::vector<std::thread> threads;
  const std::uint64_t start = MonotonicNs();
  for (std::vector<double>& mine : samples) {
    threads.emplace_back([ring, bursts, &mine] {
      RingClient client;
      client.Adopt(ring->ring_memory(), ring->staging_memory());
      for (int b = 0; b < bursts; ++b) {
        const std::uint64_t before = MonotonicNs();
        for (int i = 0; i < kBurst; ++i) Send(&client);
        mine.push_back(static_cast<double>(MonotonicNs() - before) / kBurst);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  const auto sent = static_cast<std::uint64_t>(producers) *
                    static_cast<std::uint64_t>(bursts) * kBurst;
  while (drain.taken.load(std::memory_order_acquire) < sent) SleepNs(1000);
  const double seconds = static_cast<double>(MonotonicNs() - start) / 1e9;
  consumer.Stop();
  std::vector<double> all;
  for (const auto& mine : samples) {
    all.insert(all.end(), mine.begin(), mine.end());
  }
  const std::string who = std::to_string(producers) + " producers: ";
  Row(who + "a frame, median", Quantile(all, 0.5), "ns");
  Row(who + "a frame, 99th percentile", Quantile(all, 0.99), "ns");
  Row(who + "frames", static_cast<double>(sent) / seconds / 1e6, "M/s");
}

void Baseline(int rounds) {
  std::vector<std::byte> from(104, std::byte{1});
  std::vector<std::byte> to(1 << 20);
  const std::uint64_t start = MonotonicNs();
  for (int i = 0; i < rounds; ++i) {
    std::memcpy(
        to.data() + (static_cast<std::size_t>(i) * 112) % (to.size() - 112),
        from.data(), from.size());
  }
  Row("baseline: memcpy of a frame",
      static_cast<double>(MonotonicNs() - start) / rounds, "ns");
}

}  // namespace
}  // namespace pos::eval

int main(int argc, char** argv) {
  const bool smoke = pos::eval::IsSmoke(argc, argv);
  pos::eval::Baseline(smoke ? 1000 : 1000000);
  for (const int producers : {1, 2, 4}) {
    pos::eval::Measure(producers, smoke ? 20 : 20000);
  }
  return 0;
}
