// What an operation spends its time with, for `--trace`.
//
//   trace_.Phase("quiesce");                       ends the phase before
//   const auto span = trace_.Begin("save", 3);     of session 3, until it goes
//   trace_.Add("CRIU dump", 0, from_ns, to_ns);    what is known afterwards
//
// Costs nothing but a few hundred bytes per event, so it always records; who
// wants to see it asks.
//
// Threads: any.
#ifndef POS_DAEMON_TRACE_RECORDER_H_
#define POS_DAEMON_TRACE_RECORDER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/mutex.h"
#include "pos/daemon/pos.pb.h"
#include "pos/runner/runner.pb.h"

namespace pos {

class TraceRecorder {
 public:
  class Span {
   public:
    Span(TraceRecorder* recorder, std::string name, std::uint64_t session)
        : recorder_(recorder),
          name_(std::move(name)),
          session_(session),
          begin_ns_(MonotonicNs()) {}
    ~Span() {
      recorder_->Add(name_, session_, begin_ns_, MonotonicNs(), bytes_);
    }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;
    void set_bytes(std::uint64_t bytes) { bytes_ = bytes; }

   private:
    TraceRecorder* const recorder_;
    const std::string name_;
    const std::uint64_t session_;
    const std::uint64_t begin_ns_;
    std::uint64_t bytes_ = 0;
  };

  // Times are counted from `start_ns` (CLOCK_MONOTONIC).
  explicit TraceRecorder(std::uint64_t start_ns) : start_ns_(start_ns) {}

  // Of the operation as a whole. Once more with the same name: goes on.
  void Phase(const std::string& name) POS_EXCLUDES(mu_);
  [[nodiscard]] Span Begin(std::string name, std::uint64_t session) {
    return {this, std::move(name), session};
  }
  void Add(const std::string& name, std::uint64_t session,
           std::uint64_t begin_ns, std::uint64_t end_ns,
           std::uint64_t bytes = 0) POS_EXCLUDES(mu_);

  // Everything so far, the phase that is under way ended now.
  [[nodiscard]] std::vector<v1::TraceEvent> Events() const POS_EXCLUDES(mu_);

 private:
  // A job has few sessions and an operation few steps; retries might not end.
  static constexpr std::size_t kMostEvents = 100'000;
  [[nodiscard]] v1::TraceEvent Make(const std::string& name,
                                    std::uint64_t session,
                                    std::uint64_t begin_ns,
                                    std::uint64_t end_ns) const;

  const std::uint64_t start_ns_;
  mutable Mutex mu_;
  std::vector<v1::TraceEvent> events_ POS_GUARDED_BY(mu_);
  std::string phase_ POS_GUARDED_BY(mu_);  // empty: none yet
  std::uint64_t phase_ns_ POS_GUARDED_BY(mu_) = 0;
};

// What a runner is asked for: "quiesce", "save", …
[[nodiscard]] std::string RunnerRequestName(const runner::ToRunner& request);

}  // namespace pos

#endif  // POS_DAEMON_TRACE_RECORDER_H_
