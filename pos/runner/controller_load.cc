// Sessions whose memory is loaded behind them.
#include <atomic>
#include <utility>

#include "ckpt/engine/session_load.h"
#include "pos/base/log.h"
#include "pos/runner/controller.h"

namespace pos {

Status Controller::LoadLazily(const runner::Load& request,
                              ckpt::SessionLoadFiles files,
                              runner::FromRunner* reply) {
  ckpt::LazyLoadOptions options;
  options.bytes_per_second = request.lazy_bytes_per_second();
  POS_ASSIGN_OR_RETURN(lazy_, ckpt::LoadSessionLazily(
                                  session_.get(), std::move(files), options));
  session_->SetWatch(lazy_.get());
  ckpt::LazyLoad::Hooks hooks;
  hooks.wake = [this] { session_->Wake(); };
  hooks.ended = [this] {
    lazy_ended_.store(true, std::memory_order_release);
    Wake();
  };
  lazy_->Begin(std::move(hooks));
  reply->mutable_loaded()->set_loading(true);
  return {};
}

void Controller::OnLazyEnded() {
  const ckpt::LazyLoad::Progress progress = lazy_->progress();
  if (progress.status.ok()) {
    session_->ReplaceWatch(nullptr);
    lazy_.reset();
    POS_LOG(kInfo, "all memory is loaded",
            {{"job", job_}, {"bytes", progress.loaded_bytes}});
    SendEvent(runner::Event::LOADED, "");
    return;
  }
  // Calls wait for what will not come: nothing is left but to end.
  POS_LOG(kError, "memory of the session could not be loaded",
          {{"job", job_}, {"why", progress.status.ToString()}});
  SendEvent(runner::Event::LOAD_FAILED, progress.status.ToString());
  exit_status_ = 1;
  ending_ = true;
}

}  // namespace pos
