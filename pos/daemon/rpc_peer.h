// Requests and events over a ControlChannel: what posd uses to talk to runners
// and jobs. `To` and `From` are protobuf messages; Traits says how they carry
// ids:
//
//   static void SetId(To*, std::uint64_t);
//   static std::uint64_t ReplyId(const From&);   // 0: an event
//
// Threads: Call, Ask and Send: any thread but the event loop's for Call.
//   `on_event`, `on_closed` and Ask's `done` run on the event loop, in the
//   order in which what they tell of has come.
// Ownership: shared; callbacks hold only weak references to it.
// Errors:  kClosed when the peer goes away before it has answered, kTimeout
// when
//   it does not answer in time; a late answer is dropped.
#ifndef POS_DAEMON_RPC_PEER_H_
#define POS_DAEMON_RPC_PEER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/daemon/event_loop.h"
#include "remoting/control/channel.h"

namespace pos {

template <typename To, typename From, typename Traits>
class RpcPeer : public std::enable_shared_from_this<RpcPeer<To, From, Traits>> {
 public:
  struct Message {
    From body;
    std::vector<UniqueFd> fds;
  };
  using EventFunction = std::function<void(Message)>;
  using ClosedFunction = std::function<void()>;
  using DoneFunction = std::function<void(Result<Message>)>;

  static std::shared_ptr<RpcPeer> Create(EventLoop* loop, UniqueFd socket,
                                         EventFunction on_event,
                                         ClosedFunction on_closed) {
    std::shared_ptr<RpcPeer> peer(new RpcPeer(
        loop, std::move(socket), std::move(on_event), std::move(on_closed)));
    // Watched from the loop itself, so that the number of the watch is known
    // before anything can happen on it.
    loop->Post([peer] { peer->Watch(); });
    return peer;
  }

  Result<Message> Call(To request, std::span<const int> fds,
                       std::uint64_t timeout_ms) POS_EXCLUDES(mu_) {
    auto pending = std::make_shared<Pending>();
    std::uint64_t id = 0;
    {
      MutexLock lock(&mu_);
      if (closed_) return Closed("the process at the other end is gone");
      id = next_id_++;
      pending_[id] = pending;
    }
    Traits::SetId(&request, id);
    Status sent = channel_.Send(request.SerializeAsString(), fds);
    const Deadline deadline = Deadline::AfterMs(timeout_ms);
    MutexLock lock(&mu_);
    while (sent.ok() && !pending->done && !deadline.Passed()) {
      changed_.WaitFor(&mu_, std::chrono::nanoseconds(deadline.LeftNs()));
    }
    pending_.erase(id);
    if (!sent.ok()) return sent;
    if (!pending->done) {
      return Timeout("no answer within " + std::to_string(timeout_ms) + " ms");
    }
    if (!pending->status.ok()) return pending->status;
    return std::move(pending->message);
  }

  // As Call, but does not wait: `done` runs once, when the answer comes,
  // however late, or the connection has ended.
  void Ask(To request, DoneFunction done) POS_EXCLUDES(mu_) {
    auto pending = std::make_shared<Pending>();
    pending->function = std::move(done);
    std::uint64_t id = 0;
    {
      MutexLock lock(&mu_);
      if (closed_) {
        loop_->Post([pending] {
          pending->function(Closed("the process at the other end is gone"));
        });
        return;
      }
      id = next_id_++;
      pending_[id] = pending;
    }
    Traits::SetId(&request, id);
    // What cannot be asked is of no use: Close follows.
    if (!channel_.Send(request.SerializeAsString()).ok()) channel_.Shutdown();
  }

  // Sends without waiting for an answer.
  Status Send(To request, std::span<const int> fds = {}) {
    Traits::SetId(&request, 0);
    return channel_.Send(request.SerializeAsString(), fds);
  }

  [[nodiscard]] bool closed() POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    return closed_;
  }
  // Ends the connection; on_closed follows.
  void Shutdown() { channel_.Shutdown(); }

 private:
  struct Pending {
    bool done = false;
    Status status;
    Message message;
    DoneFunction function;  // of Ask
  };

  RpcPeer(EventLoop* loop, UniqueFd socket, EventFunction on_event,
          ClosedFunction on_closed)
      : loop_(loop),
        channel_(std::move(socket)),
        on_event_(std::move(on_event)),
        on_closed_(std::move(on_closed)) {}

  void Watch() {
    watch_ = loop_->Add(channel_.fd(), [self = this->shared_from_this()] {
      self->OnReadable();
    });
  }

  void OnReadable() POS_EXCLUDES(mu_) {
    Result<ControlChannel::Message> raw = channel_.Receive(0);
    if (!raw.ok()) {
      if (raw.status().code() != Code::kTimeout) Close();
      return;
    }
    Message message;
    if (!message.body.ParseFromString(raw->bytes)) {
      Close();
      return;
    }
    message.fds = std::move(raw->fds);
    const std::uint64_t id = Traits::ReplyId(message.body);
    if (id == 0) {
      if (on_event_) on_event_(std::move(message));
      return;
    }
    std::shared_ptr<Pending> asked;
    {
      MutexLock lock(&mu_);
      const auto it = pending_.find(id);
      if (it == pending_.end()) return;
      if (it->second->function) {
        asked = it->second;
        pending_.erase(it);
      } else {
        it->second->message = std::move(message);
        it->second->done = true;
        changed_.NotifyAll();
      }
    }
    if (asked != nullptr) asked->function(std::move(message));
  }

  void Close() POS_EXCLUDES(mu_) {
    loop_->Remove(watch_);
    channel_.Shutdown();
    std::vector<std::shared_ptr<Pending>> asked;
    {
      MutexLock lock(&mu_);
      closed_ = true;
      for (auto& [id, pending] : pending_) {
        if (pending->function) asked.push_back(pending);
        pending->status = Closed("the process at the other end is gone");
        pending->done = true;
      }
      std::erase_if(pending_, [](const auto& p) {
        return p.second->function != nullptr;
      });
      changed_.NotifyAll();
    }
    for (const auto& pending : asked) pending->function(pending->status);
    // Once; and whatever the functions hold goes with them.
    const ClosedFunction closed = std::exchange(on_closed_, nullptr);
    on_event_ = nullptr;
    if (closed) closed();
  }

  EventLoop* const loop_;
  ControlChannel channel_;
  EventFunction on_event_;    // loop
  ClosedFunction on_closed_;  // loop
  std::uint64_t watch_ = 0;   // loop
  Mutex mu_;
  CondVar changed_;
  bool closed_ POS_GUARDED_BY(mu_) = false;
  std::uint64_t next_id_ POS_GUARDED_BY(mu_) = 1;
  std::map<std::uint64_t, std::shared_ptr<Pending>> pending_
      POS_GUARDED_BY(mu_);
};

}  // namespace pos

#endif  // POS_DAEMON_RPC_PEER_H_
