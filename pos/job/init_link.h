// The monitor's side of init: starts it, sends it commands, hears from it,
// notices its end.
//
// Threads: the loop's.
#ifndef POS_JOB_INIT_LINK_H_
#define POS_JOB_INIT_LINK_H_

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/job/event_loop.h"
#include "pos/job/init.h"
#include "pos/job/init.pb.h"
#include "remoting/control/channel.h"

namespace pos::job {

class InitLink {
 public:
  // Everything but Done goes to `report`. `gone`: init has ended and was
  // reaped, nothing of the job is left; nothing follows.
  struct Handlers {
    std::function<void(const InitReport&, std::vector<UniqueFd>)> report;
    std::function<void()> gone;
  };
  using DoneHandler = std::function<void(const Status&, UniqueFd)>;

  // Makes the namespaces and forks. `plan.link` is filled in here.
  static Result<std::unique_ptr<InitLink>> Start(EventLoop* loop, InitPlan plan,
                                                 Handlers handlers);
  ~InitLink();
  InitLink(const InitLink&) = delete;
  InitLink& operator=(const InitLink&) = delete;

  // Errors mean that init is going; `gone` will say so.
  void Send(const InitCommand& command, std::span<const int> fds = {});
  // For commands that are answered with Done: `done` is called once, with
  // kClosed when init ends first.
  void Call(InitCommand command, DoneHandler done);
  // Kills init and with it everything inside, now.
  void Kill();

  [[nodiscard]] pid_t pid() const { return pid_; }  // as seen here
  [[nodiscard]] bool alive() const { return !reaped_; }

 private:
  InitLink(EventLoop* loop, pid_t pid, UniqueFd pidfd, UniqueFd link,
           Handlers handlers);

  void OnLink();
  void OnEnd();
  // Handles what has arrived; false at end of file.
  bool ReceiveAll();
  void Dispatch(const InitReport& report, std::vector<UniqueFd> fds);

  EventLoop* const loop_;
  const pid_t pid_;
  const UniqueFd pidfd_;
  ControlChannel link_;
  const Handlers handlers_;
  std::map<std::uint64_t, DoneHandler> waiting_;
  std::uint64_t next_id_ = 1;
  bool reaped_ = false;
};

}  // namespace pos::job

#endif  // POS_JOB_INIT_LINK_H_
