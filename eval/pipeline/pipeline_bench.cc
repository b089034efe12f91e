// Question: what does a call cost from the ring to the device and back, with
//   the stages on one, two and three threads?
// Unit: millions of calls per second; microseconds per round trip; allocations
//   per call in steady state.
// Baseline: the same over gRPC, in grpc_bench; run both one after the other.
// The device does nothing. The asynchronous call is EventRecord, the
// synchronous one StreamQuery, which the worker answers.
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "eval/support/report.h"
#include "eval/support/session.h"
#include "pos/base/clock.h"
#include "tests/support/alloc_count.h"

namespace pos::eval {
namespace {

double Us(std::uint64_t ns) { return static_cast<double>(ns) / 1e3; }

void Throughput(int stage_threads, int producers, int calls) {
  NullSession session(stage_threads);
  NullClient first(&session, 0);
  const cuda::CtxCreateOut context = first.MakeContext();
  const cuda::EventRecordArgs record{.event = first.MakeEvent(context.context),
                                     .stream = context.stream};
  const auto send = [&](NullClient* client, int count) {
    for (int i = 0; i < count; ++i) client->Post(record);
  };
  send(&first, 20000);  // buffers grow to what they need
  first.Call(cuda::CtxSynchronizeArgs{.context = context.context});
  const std::uint64_t allocations = AllocationCount();
  std::vector<std::thread> threads;
  const std::uint64_t start = MonotonicNs();
  for (int p = 1; p < producers; ++p) {
    threads.emplace_back([&, p] {
      NullClient client(&session, static_cast<std::uint32_t>(p));
      send(&client, calls);
    });
  }
  send(&first, calls);
  for (std::thread& t : threads) t.join();
  first.Call(cuda::CtxSynchronizeArgs{.context = context.context});
  const double seconds = static_cast<double>(MonotonicNs() - start) / 1e9;
  const double total = static_cast<double>(calls) * producers;
  const std::string who = std::to_string(stage_threads) + " stage threads, " +
                          std::to_string(producers) + " producers: ";
  Row(who + "calls", total / seconds / 1e6, "M/s", ">= 3");
  if (producers == 1) {
    Row(who + "allocations a call",
        static_cast<double>(AllocationCount() - allocations) / total, "", "0");
  }
}

void Bursts(int stage_threads, int bursts) {
  constexpr int kBurst = 64;
  NullSession session(stage_threads);
  NullClient client(&session, 0);
  const cuda::CtxCreateOut context = client.MakeContext();
  const cuda::EventRecordArgs record{.event = client.MakeEvent(context.context),
                                     .stream = context.stream};
  std::vector<double> samples;
  for (int b = 0; b < bursts; ++b) {
    const std::uint64_t before = MonotonicNs();
    for (int i = 0; i < kBurst; ++i) client.Post(record);
    samples.push_back(static_cast<double>(MonotonicNs() - before) / kBurst);
    client.Call(cuda::CtxSynchronizeArgs{.context = context.context});
  }
  const std::string who = std::to_string(stage_threads) + " stage threads: ";
  Row(who + "asynchronous call, bursts of 64, median", Quantile(samples, 0.5),
      "ns", "<= 150 with the client library");
  Row(who + "asynchronous call, bursts of 64, 99th", Quantile(samples, 0.99),
      "ns");
  samples.clear();
  for (int i = 0; i < std::max(bursts / 100, 5); ++i) {
    SleepNs(2'000'000);
    const std::uint64_t before = MonotonicNs();
    client.Post(record);
    samples.push_back(Us(MonotonicNs() - before));
  }
  Row(who + "first call after 2 ms of idleness, median", Quantile(samples, 0.5),
      "us", "<= 6");
}

void RoundTrips(int stage_threads, std::uint64_t gap_us, int rounds,
                const char* target) {
  NullSession session(stage_threads);
  NullClient client(&session, 0);
  const cuda::CtxCreateOut context = client.MakeContext();
  const cuda::StreamQueryArgs query{.stream = context.stream};
  std::vector<double> samples;
  for (int i = 0; i < rounds; ++i) {
    if (gap_us != 0) SleepNs(gap_us * 1000);
    const std::uint64_t before = MonotonicNs();
    client.Call(query);
    samples.push_back(Us(MonotonicNs() - before));
  }
  const std::string who =
      std::to_string(stage_threads) + " stage threads: round trip, " +
      (gap_us == 0 ? "back to back" : std::to_string(gap_us) + " us apart");
  Row(who + ", median", Quantile(samples, 0.5), "us", target);
  Row(who + ", 99th", Quantile(samples, 0.99), "us");
}

}  // namespace
}  // namespace pos::eval

int main(int argc, char** argv) {
  const bool smoke = pos::eval::IsSmoke(argc, argv);
  for (const int threads : {1, 2, 3}) {
    for (const int producers : {1, 2}) {
      pos::eval::Throughput(threads, producers, smoke ? 1000 : 2000000);
    }
    pos::eval::Bursts(threads, smoke ? 20 : 20000);
    pos::eval::RoundTrips(threads, 0, smoke ? 100 : 200000, "<= 4");
    pos::eval::RoundTrips(threads, 200, smoke ? 10 : 5000, "<= 8");
    pos::eval::RoundTrips(threads, 2000, smoke ? 3 : 500, "");
  }
  return 0;
}
