// What a job remembers of how its memory was loaded and copied.
#include <algorithm>
#include <utility>

#include "pos/daemon/job.h"

namespace pos {

bool Job::Loading() const {
  // One that is silent may load.
  return std::any_of(sessions_.begin(), sessions_.end(),
                     [](const JobSession& s) { return s.loading || s.silent; });
}

std::string Job::TakePinIfLoaded() {
  MutexLock lock(&mu_);
  return Loading() ? "" : std::exchange(record_.pin, "");
}

std::string Job::TakePin() {
  MutexLock lock(&mu_);
  return std::exchange(record_.pin, "");
}

void Job::NoteLoaded(std::uint64_t at_ns) {
  MutexLock lock(&mu_);
  loaded_ns_ = std::max(loaded_ns_, at_ns);
}

void Job::NoteLoadError(Status status) {
  MutexLock lock(&mu_);
  if (load_error_.ok()) load_error_ = std::move(status);
}

std::uint64_t Job::loaded_ns() const {
  MutexLock lock(&mu_);
  return loaded_ns_;
}

Status Job::load_error() const {
  MutexLock lock(&mu_);
  return load_error_;
}

Job::CopyHistory Job::copy_history() const {
  MutexLock lock(&mu_);
  return copy_history_;
}

void Job::NoteUnforeseen() {
  MutexLock lock(&mu_);
  copy_history_.unforeseen = true;
}

void Job::NoteTooFast() {
  MutexLock lock(&mu_);
  copy_history_.too_fast = true;
}

}  // namespace pos
