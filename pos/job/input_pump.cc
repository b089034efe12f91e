#include "pos/job/input_pump.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <utility>

namespace pos::job {
namespace {

constexpr std::size_t kPieceBytes = 16 * 1024;
constexpr std::size_t kPipeBytes = 64 * 1024;  // pipe(7): the default capacity

}  // namespace

InputPump::InputPump(EventLoop* loop, UniqueFd sink, UniqueFd probe,
                     bool terminal, CallerFd caller, bool paused,
                     std::string_view first)
    : loop_(loop),
      sink_(std::move(sink)),
      probe_(std::move(probe)),
      terminal_(terminal),
      caller_(std::move(caller)),
      reading_(!paused),
      queue_(first) {}

InputPump::~InputPump() {
  if (!started_) return;
  if (caller_.valid()) loop_->Unwatch(caller_.fd());
  if (sink_.valid()) loop_->Unwatch(sink_.get());
}

void InputPump::Start() {
  started_ = true;
  if (caller_.valid()) {
    loop_->Watch(caller_.fd(), 0, [this](short) { OnCaller(); });
  }
  if (sink_.valid()) {
    loop_->Watch(sink_.get(), 0, [this](short) { OnSink(); });
  }
  OnSink();
}

void InputPump::UpdateWatches() {
  if (!started_) return;
  if (caller_.valid()) {
    const bool room = queue_.size() < kPieceBytes;
    loop_->SetEvents(caller_.fd(), reading_ && room ? POLLIN : 0);
  }
  if (sink_.valid()) {
    loop_->SetEvents(sink_.get(), queue_.empty() ? 0 : POLLOUT);
  }
}

void InputPump::SetReading(bool reading) {
  reading_ = reading;
  UpdateWatches();
}

void InputPump::OnCaller() {
  std::array<std::byte, kPieceBytes> buffer;
  std::size_t moved = 0;
  switch (caller_.Read(buffer, &moved)) {
    case CallerFd::Outcome::kDone:
      queue_.append(reinterpret_cast<const char*>(buffer.data()), moved);
      break;
    case CallerFd::Outcome::kWait:
      break;
    case CallerFd::Outcome::kEnd:
    case CallerFd::Outcome::kBroken:
    case CallerFd::Outcome::kError:
      CloseCaller();
      break;
  }
  OnSink();
}

void InputPump::OnSink() {
  while (sink_.valid() && !queue_.empty()) {
    const ssize_t n = ::write(sink_.get(), queue_.data(), queue_.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) {  // nobody reads, and nobody will
      queue_.clear();
      CloseCaller();
      break;
    }
    const auto written = static_cast<std::size_t>(n);
    if (!terminal_) {
      history_.append(queue_, 0, written);
      if (history_.size() > kPipeBytes) {
        history_.erase(0, history_.size() - kPipeBytes);
      }
    }
    queue_.erase(0, written);
  }
  if (queue_.empty() && !caller_.valid()) EndSink();
  UpdateWatches();
}

void InputPump::EndSink() {
  if (!sink_.valid() || terminal_) return;
  if (started_) loop_->Unwatch(sink_.get());
  sink_.Reset();
}

void InputPump::CloseCaller() {
  if (!caller_.valid()) return;
  if (started_) loop_->Unwatch(caller_.fd());
  caller_.Close();
}

void InputPump::DetachCaller() {
  CloseCaller();
  OnSink();
}

std::string InputPump::Pending() const {
  if (terminal_) return "";
  std::string pending;
  int unread = 0;
  if (::ioctl(probe_.get(), FIONREAD, &unread) == 0) {
    const std::size_t keep = std::min(
        static_cast<std::size_t>(std::max(unread, 0)), history_.size());
    pending = history_.substr(history_.size() - keep);
  }
  return pending + queue_;
}

}  // namespace pos::job
