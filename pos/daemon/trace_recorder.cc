#include "pos/daemon/trace_recorder.h"

namespace pos {

v1::TraceEvent TraceRecorder::Make(const std::string& name,
                                   std::uint64_t session,
                                   std::uint64_t begin_ns,
                                   std::uint64_t end_ns) const {
  v1::TraceEvent event;
  event.set_name(name);
  event.set_session(session);
  const std::uint64_t begin = begin_ns > start_ns_ ? begin_ns - start_ns_ : 0;
  event.set_begin_us(begin / 1000);
  event.set_duration_us(end_ns > begin_ns ? (end_ns - begin_ns) / 1000 : 0);
  return event;
}

void TraceRecorder::Phase(const std::string& name) {
  const std::uint64_t now = MonotonicNs();
  MutexLock lock(&mu_);
  if (name == phase_ || events_.size() >= kMostEvents) return;
  if (!phase_.empty()) events_.push_back(Make(phase_, 0, phase_ns_, now));
  phase_ = name;
  phase_ns_ = now;
}

void TraceRecorder::Add(const std::string& name, std::uint64_t session,
                        std::uint64_t begin_ns, std::uint64_t end_ns,
                        std::uint64_t bytes) {
  v1::TraceEvent event = Make(name, session, begin_ns, end_ns);
  event.set_bytes(bytes);
  MutexLock lock(&mu_);
  if (events_.size() < kMostEvents) events_.push_back(std::move(event));
}

std::vector<v1::TraceEvent> TraceRecorder::Events() const {
  const std::uint64_t now = MonotonicNs();
  MutexLock lock(&mu_);
  std::vector<v1::TraceEvent> events = events_;
  if (!phase_.empty()) events.push_back(Make(phase_, 0, phase_ns_, now));
  return events;
}

std::string RunnerRequestName(const runner::ToRunner& request) {
  switch (request.request_case()) {
    case runner::ToRunner::kLoad:
      return "load";
    case runner::ToRunner::kQuiesce:
      return "gate and drain";
    case runner::ToRunner::kDetach:
      return "detach";
    case runner::ToRunner::kSave:
      return "copy device memory";
    case runner::ToRunner::kSaveHost:
      return "copy host memory";
    case runner::ToRunner::kFinish:
      return "write";
    case runner::ToRunner::kCancelSave:
      return "close";
    case runner::ToRunner::kResume:
      return "resume";
    default:
      return "request " + std::to_string(request.request_case());
  }
}

}  // namespace pos
