#include "pos/job/posd_link.h"

#include <unistd.h>

#include <array>
#include <utility>

#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/job/messages.h"

namespace pos::job {

PosdLink::PosdLink(EventLoop* loop, Handlers handlers)
    : loop_(loop), handlers_(std::move(handlers)) {}

PosdLink::~PosdLink() {
  Close();
  if (!listener_.valid()) return;
  loop_->Unwatch(listener_.get());
  RemoveFile(path_).IgnoreError();
}

Status PosdLink::Listen(const std::string& path) {
  POS_ASSIGN_OR_RETURN(listener_, ControlChannel::Listen(path, 0600));
  path_ = path;
  loop_->Watch(listener_.get(), POLLIN, [this](short) { OnListener(); });
  return {};
}

void PosdLink::OnListener() {
  Result<UniqueFd> socket = ControlChannel::Accept(listener_.get(), 0);
  if (!socket.ok()) return;
  const Result<PeerCredentials> peer = ControlChannel::Peer(socket->get());
  if (!peer.ok() || (peer->uid != 0 && peer->uid != ::geteuid())) {
    POS_LOG(kWarning, "refused a connection",
            {{"uid", peer.ok() ? peer->uid : static_cast<uid_t>(-1)}});
    return;
  }
  Adopt(std::move(*socket));
}

void PosdLink::Adopt(UniqueFd socket) {
  Close();
  channel_ = std::make_unique<ControlChannel>(std::move(socket));
  loop_->Watch(channel_->fd(), POLLIN, [this](short) { OnChannel(); });
  FromJob message;
  *message.mutable_hello() = handlers_.hello();
  Send(message, -1);
}

void PosdLink::Close() {
  if (!channel_) return;
  loop_->Unwatch(channel_->fd());
  channel_.reset();
}

void PosdLink::OnChannel() {
  Result<ControlChannel::Message> message = channel_->Receive(0);
  if (!message.ok()) {
    if (message.status().code() == Code::kTimeout) return;
    POS_LOG(kInfo, "posd is gone", {{"why", message.status().ToString()}});
    Close();
    handlers_.lost();
    return;
  }
  const Result<ToJob> request = ParseMessage<ToJob>(message->bytes);
  if (!request.ok()) {
    POS_LOG(kWarning, "malformed request");
    Close();
    handlers_.lost();
    return;
  }
  handlers_.request(*request, std::move(message->fds));
}

void PosdLink::Send(const FromJob& message, int fd) {
  if (!channel_) return;
  const std::array<int, 1> fds = {fd};
  const Status status =
      SendMessage(channel_.get(), message,
                  fd >= 0 ? std::span<const int>(fds) : std::span<const int>());
  if (!status.ok()) {
    // The end of file that follows closes the connection in OnChannel; a posd
    // that does not read is cut off here.
    POS_LOG(kWarning, "posd does not listen", {{"why", status.ToString()}});
    channel_->Shutdown();
  }
}

void PosdLink::SendEvent(const Event& event) {
  FromJob message;
  *message.mutable_event() = event;
  Send(message, -1);
}

void PosdLink::SendReply(const Reply& reply, int fd) {
  FromJob message;
  *message.mutable_reply() = reply;
  Send(message, fd);
}

}  // namespace pos::job
