// The monitor's side of its connections with posd: the one it was started with,
// and DIR/job.sock for a posd that comes later. The newest is in use.
//
// Threads: the loop's.
#ifndef POS_JOB_POSD_LINK_H_
#define POS_JOB_POSD_LINK_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/job/event_loop.h"
#include "pos/job/job.pb.h"
#include "remoting/control/channel.h"

namespace pos::job {

class PosdLink {
 public:
  struct Handlers {
    std::function<Hello()> hello;  // sent first on every connection
    std::function<void(const ToJob&, std::vector<UniqueFd>)> request;
    std::function<void()> lost;  // no connection is left
  };

  PosdLink(EventLoop* loop, Handlers handlers);
  ~PosdLink();
  PosdLink(const PosdLink&) = delete;
  PosdLink& operator=(const PosdLink&) = delete;

  Status Listen(const std::string& path);
  void Adopt(UniqueFd socket);
  [[nodiscard]] bool connected() const { return channel_ != nullptr; }

  // Dropped when nobody is connected: Hello tells a later posd the rest.
  void SendEvent(const Event& event);
  void SendReply(const Reply& reply, int fd = -1);

 private:
  void Send(const FromJob& message, int fd);
  void OnListener();
  void OnChannel();
  void Close();

  EventLoop* const loop_;
  const Handlers handlers_;
  std::string path_;
  UniqueFd listener_;
  std::unique_ptr<ControlChannel> channel_;
};

}  // namespace pos::job

#endif  // POS_JOB_POSD_LINK_H_
