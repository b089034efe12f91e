// Question: what does a session cost that does nothing, and does the cost of a
//   call grow with the number of sessions?
// Unit: share of one processor; microseconds of processor time per call.
// Baseline: one session.
// The sessions lie in one process here, each with its stage thread, ring and
// null device; posd is not part of it.
#include <sys/resource.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "eval/support/report.h"
#include "eval/support/session.h"
#include "pos/base/clock.h"

namespace pos::eval {
namespace {

double ProcessorSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

using Sessions = std::vector<std::unique_ptr<NullSession>>;

Sessions Make(int count) {
  Sessions sessions;
  for (int i = 0; i < count; ++i) {
    sessions.push_back(std::make_unique<NullSession>(1));
    NullClient(sessions.back().get(), 0).MakeContext();
  }
  return sessions;
}

void Idle(int count, double seconds, const char* target) {
  const Sessions sessions = Make(count);
  SleepNs(20'000'000);  // the stages fall asleep
  const double before = ProcessorSeconds();
  SleepNs(static_cast<std::uint64_t>(seconds * 1e9));
  const double used = ProcessorSeconds() - before;
  Row(std::to_string(count) + " idle sessions, together", 100 * used / seconds,
      "% of a core", target);
}

void Busy(int count, int calls) {
  const Sessions sessions = Make(count);
  const double before = ProcessorSeconds();
  const std::uint64_t start = MonotonicNs();
  std::vector<std::thread> clients;
  for (const auto& session : sessions) {
    clients.emplace_back([&session, calls] {
      NullClient client(session.get(), 0);
      const cuda::CtxCreateOut context = client.MakeContext();
      const cuda::EventRecordArgs record{
          .event = client.MakeEvent(context.context), .stream = context.stream};
      for (int i = 0; i < calls; ++i) {
        client.Post(record);
        if (i % 64 == 63) {
          client.Call(cuda::StreamQueryArgs{.stream = context.stream});
        }
      }
      client.Call(cuda::CtxSynchronizeArgs{.context = context.context});
    });
  }
  for (std::thread& t : clients) t.join();
  const double total = static_cast<double>(calls) * count;
  const double seconds = static_cast<double>(MonotonicNs() - start) / 1e9;
  const std::string who = std::to_string(count) + " busy sessions: ";
  Row(who + "processor time a call",
      1e6 * (ProcessorSeconds() - before) / total, "us",
      count == 1 ? "" : "as with one");
  Row(who + "calls", total / seconds / 1e6, "M/s");
}

}  // namespace
}  // namespace pos::eval

int main(int argc, char** argv) {
  const bool smoke = pos::eval::IsSmoke(argc, argv);
  const double seconds = smoke ? 0.05 : 10;
  pos::eval::Idle(1, seconds, "< 0.1");
  pos::eval::Idle(smoke ? 10 : 100, seconds, "< 3, posd included");
  const int most = smoke ? 4 : 256;
  for (int count = 1; count <= most; count *= 4) {
    pos::eval::Busy(count, smoke ? 200 : 2000000 / count);
  }
  return 0;
}
