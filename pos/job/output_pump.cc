#include "pos/job/output_pump.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "pos/base/log.h"

namespace pos::job {
namespace {

constexpr std::size_t kPieceBytes = 64 * 1024;

}  // namespace

OutputPump::OutputPump(EventLoop* loop, UniqueFd source, CallerFd caller,
                       LogFile* log, const Options& options, GoneHandler gone)
    : loop_(loop),
      source_(std::move(source)),
      caller_(std::move(caller)),
      log_(log),
      options_(options),
      gone_(std::move(gone)) {}

OutputPump::~OutputPump() {
  if (!started_) return;
  if (source_.valid()) loop_->Unwatch(source_.get());
  if (caller_.valid()) loop_->Unwatch(caller_.fd());
}

void OutputPump::Start() {
  started_ = true;
  if (source_.valid()) {
    loop_->Watch(source_.get(), 0, [this](short) { OnSource(); });
  }
  if (caller_.valid()) {
    loop_->Watch(caller_.fd(), 0, [this](short) {
      Deliver();
      UpdateWatches();
    });
  }
  UpdateWatches();
}

void OutputPump::UpdateWatches() {
  if (!started_) return;
  if (source_.valid()) {
    loop_->SetEvents(source_.get(), pending_.empty() ? POLLIN : 0);
  }
  if (caller_.valid()) {
    loop_->SetEvents(caller_.fd(), pending_.empty() ? 0 : POLLOUT);
  }
}

void OutputPump::EndSource() {
  if (!source_.valid()) return;
  loop_->Unwatch(source_.get());
  source_.Reset();
}

bool OutputPump::ReadOnce() {
  std::array<std::byte, kPieceBytes> buffer;
  const ssize_t n = ::read(source_.get(), buffer.data(), buffer.size());
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (n <= 0) {  // a terminal says EIO when its last user is gone
    EndSource();
    return false;
  }
  const std::span<const std::byte> bytes(buffer.data(),
                                         static_cast<std::size_t>(n));
  if (!caller_.valid() || options_.log_attached) log_->Append(bytes);
  if (caller_.valid()) {
    pending_.insert(pending_.end(), bytes.begin(), bytes.end());
  }
  return true;
}

void OutputPump::OnSource() {
  // One piece per round, so that no stream starves the others.
  if (ReadOnce()) Deliver();
  UpdateWatches();
}

void OutputPump::Deliver() {
  std::size_t done = 0;
  while (caller_.valid() && done < pending_.size()) {
    std::size_t moved = 0;
    const CallerFd::Outcome outcome =
        caller_.Write(std::span(pending_).subspan(done), &moved);
    if (outcome == CallerFd::Outcome::kWait) break;
    if (outcome != CallerFd::Outcome::kDone) {
      pending_.erase(pending_.begin(),
                     pending_.begin() + static_cast<std::ptrdiff_t>(done));
      CallerIsGone(caller_.last_error(), outcome == CallerFd::Outcome::kBroken);
      return;
    }
    done += moved;
    taken_bytes_ += moved;
  }
  pending_.erase(pending_.begin(),
                 pending_.begin() + static_cast<std::ptrdiff_t>(done));
}

void OutputPump::CallerIsGone(const std::string& why, bool was_broken) {
  if (started_) loop_->Unwatch(caller_.fd());
  caller_.Close();
  if (was_broken && options_.break_pipe && !options_.terminal) {
    // As without POS: what the reader left is lost, and the program is told by
    // its next write.
    broken_ = true;
    EndSource();
  } else if (!options_.log_attached) {
    log_->Append(pending_);
  }
  pending_.clear();
  if (gone_) gone_(why);
}

void OutputPump::DetachCaller() {
  if (!caller_.valid()) return;
  if (started_) loop_->Unwatch(caller_.fd());
  caller_.Close();
  if (!options_.log_attached) log_->Append(pending_);
  pending_.clear();
  UpdateWatches();
}

void OutputPump::Drain() {
  while (source_.valid() && ReadOnce()) {
  }
  Deliver();
  UpdateWatches();
}

void OutputPump::Finish() {
  while (source_.valid() && ReadOnce()) {
  }
  // A descriptor that somebody outside got from the job is no reason to wait.
  EndSource();
  Deliver();
  UpdateWatches();
}

}  // namespace pos::job
