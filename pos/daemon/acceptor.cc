#include "pos/daemon/acceptor.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "pos/base/log.h"
#include "pos/daemon/caller.h"
#include "pos/daemon/stdio_offer.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

namespace pos {
namespace {

// Ids in epoll's data; connections count up from kFirstConnection, so that an
// event for one that is gone finds nothing, whoever has its number now.
constexpr std::uint64_t kListener = 0;
constexpr std::uint64_t kStop = 1;
constexpr std::uint64_t kFirstConnection = 2;

constexpr int kAcceptsPerRound = 64;
constexpr std::uint64_t kPauseMs = 100;
constexpr std::uint64_t kQuietMs = 60'000;
// More than a Unix socket's queue holds (net.core.wmem_max, doubled by the
// kernel, is 416 KiB).
constexpr std::size_t kQueueBytes = 512 * 1024;

void SendReply(int socket, OfferResult result) {
  OfferReply reply;
  reply.result = static_cast<std::uint32_t>(result);
  // A new socket has room; a client that is gone does not matter.
  static_cast<void>(
      ::send(socket, &reply, sizeof(reply), MSG_DONTWAIT | MSG_NOSIGNAL));
}

}  // namespace

Result<std::unique_ptr<Acceptor>> Acceptor::Start(int listener,
                                                  OfferTable* offers,
                                                  const Limits& limits,
                                                  Http2Handler http2) {
  std::unique_ptr<Acceptor> acceptor(
      new Acceptor(listener, offers, limits, std::move(http2)));
  POS_RETURN_IF_ERROR(acceptor->Open());
  try {
    acceptor->thread_ = std::thread([a = acceptor.get()] { a->Run(); });
  } catch (const std::system_error& error) {
    return ErrnoStatus(error.code().value(), "start the acceptor's thread");
  }
  return acceptor;
}

Acceptor::Acceptor(int listener, OfferTable* offers, const Limits& limits,
                   Http2Handler http2)
    : listener_(listener),
      offers_(offers),
      limits_(limits),
      http2_(std::move(http2)),
      live_(limits.connections_per_uid, limits.connections_total),
      next_id_(kFirstConnection),
      peek_(kQueueBytes) {}

Acceptor::~Acceptor() {
  if (!thread_.joinable()) return;
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
}

Status Acceptor::Open() {
  epoll_.Reset(::epoll_create1(EPOLL_CLOEXEC));
  stop_.Reset(::eventfd(0, EFD_CLOEXEC));
  if (!epoll_.valid() || !stop_.valid()) {
    return ErrnoStatus(errno, "make the acceptor's descriptors");
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kListener;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener_, &event) != 0) {
    return ErrnoStatus(errno, "watch the listening socket");
  }
  event.data.u64 = kStop;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, stop_.get(), &event) != 0) {
    return ErrnoStatus(errno, "watch the stop event");
  }
  return {};
}

void Acceptor::Run() {
  const Status prepared = closer_.Prepare();
  if (!prepared.ok()) {
    POS_LOG(kWarning, "closing strangers' connections may be slow",
            {{"why", prepared.message()}});
  }
  std::array<epoll_event, 64> events{};
  while (!stopping_) {
    const int n = ::epoll_wait(epoll_.get(), events.data(),
                               static_cast<int>(events.size()), WaitMs());
    for (int i = 0; i < n; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == kStop) {
        stopping_ = true;
      } else if (event.data.u64 == kListener) {
        AcceptSome();
      } else {
        OnEvent(event.data.u64, event.events);
      }
    }
    ResumeAccepting();
    Expire();
  }
  while (!undecided_.empty()) closer_.Close(Remove(undecided_.begin()));
}

int Acceptor::WaitMs() const {
  std::optional<Deadline> next = offers_->NextExpiry();
  int wait_ms = next ? next->LeftMs() : -1;
  const auto earlier = [&wait_ms](const Deadline& deadline) {
    const int left = deadline.LeftMs();
    if (wait_ms < 0 || left < wait_ms) wait_ms = left;
  };
  if (!undecided_.empty()) earlier(undecided_.begin()->second.deadline);
  if (paused_until_) earlier(*paused_until_);
  return wait_ms;
}

void Acceptor::AcceptSome() {
  for (int i = 0; i < kAcceptsPerRound; ++i) {
    UniqueFd socket(
        ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EAGAIN) PauseAccepting(errno);
      return;
    }
    Admit(std::move(socket));
  }
}

void Acceptor::PauseAccepting(int error) {
  paused_until_ = Deadline::AfterMs(kPauseMs);
  epoll_event event{};
  event.data.u64 = kListener;  // no events: the listener stays readable
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_, &event);
  if (!undecided_.empty()) closer_.Close(Remove(undecided_.begin()));
  if (!quiet_until_ || quiet_until_->Passed()) {
    quiet_until_ = Deadline::AfterMs(kQuietMs);
    POS_LOG(kWarning, "cannot accept connections, trying again",
            {{"why", std::strerror(error)}});
  }
}

void Acceptor::ResumeAccepting() {
  if (!paused_until_ || !paused_until_->Passed()) return;
  paused_until_.reset();
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kListener;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_, &event);
}

void Acceptor::Admit(UniqueFd socket) {
  const Result<Caller> peer = PeerOf(socket.get());
  if (!peer.ok()) {
    closer_.Close(std::move(socket));
    return;
  }
  MakeRoom(peer->uid);
  const std::uint64_t id = next_id_++;
  undecided_.emplace(id,
                     Undecided{std::move(socket), peer->uid,
                               Deadline::AfterMs(limits_.undecided_ms), false});
  ++undecided_of_[peer->uid];
  undecided_count_.store(undecided_.size(), std::memory_order_relaxed);
  if (!Inspect(id)) return;
  const auto it = undecided_.find(id);
  // Bytes that came since are reported at once.
  it->second.watched = Watch(it->second.socket.get(), id);
  if (!it->second.watched) closer_.Close(Remove(it));
}

// The user's own oldest goes when he has too many, else the oldest of all: it
// has had the longest time to say something.
void Acceptor::MakeRoom(uid_t uid) {
  const auto count = undecided_of_.find(uid);
  if (count != undecided_of_.end() &&
      count->second >= limits_.undecided_per_uid) {
    const auto oldest = std::find_if(
        undecided_.begin(), undecided_.end(),
        [uid](const auto& entry) { return entry.second.uid == uid; });
    closer_.Close(Remove(oldest));
  } else if (undecided_.size() >= limits_.undecided_total) {
    closer_.Close(Remove(undecided_.begin()));
  }
}

void Acceptor::OnEvent(std::uint64_t id, std::uint32_t events) {
  const bool gone = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  const auto it = undecided_.find(id);
  if (it == undecided_.end()) {
    // An offer, perhaps taken meanwhile. It dies with its client.
    if (gone) closer_.Close(offers_->Drop(id));
    return;
  }
  if (Inspect(id) && gone) closer_.Close(Remove(it));
}

bool Acceptor::Inspect(std::uint64_t id) {
  const auto it = undecided_.find(id);
  std::array<std::byte, kOpeningBytes> first{};
  const ssize_t n = ::recv(it->second.socket.get(), first.data(), first.size(),
                           MSG_PEEK | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (n <= 0) {
    closer_.Close(Remove(it));
    return false;
  }
  const std::span<const std::byte> bytes =
      std::span(first).first(static_cast<std::size_t>(n));
  switch (ClassifyOpening(bytes)) {
    case Opening::kUndecided:
      return true;
    case Opening::kHttp2:
      HandOver(it);
      return false;
    case Opening::kOffer:
      TakeOffer(it, bytes);
      return false;
    case Opening::kNeither:
      closer_.Close(Remove(it));
      return false;
  }
  return false;
}

void Acceptor::TakeOffer(UndecidedMap::iterator it,
                         std::span<const std::byte> record) {
  StdioOffer offer;
  std::memcpy(&offer, record.data(), sizeof(offer));
  const std::uint64_t id = it->first;
  const uid_t uid = it->second.uid;
  const bool watched = it->second.watched;
  UniqueFd socket = Remove(it);
  OfferResult result = OfferResult::kMalformed;
  if (offer.reserved == 0 && (watched || Watch(socket.get(), id))) {
    result = offers_->Add(id, uid, offer.ticket, &socket, [](int connection) {
      SendReply(connection, OfferResult::kTaken);
    });
  }
  if (result == OfferResult::kTaken) return;
  SendReply(socket.get(), result);
  closer_.Close(std::move(socket));
}

void Acceptor::HandOver(UndecidedMap::iterator it) {
  const uid_t uid = it->second.uid;
  UniqueFd socket = Remove(it);
  const int off = 0;
  // Not known before Linux 6.16; what is queued by now is looked for either
  // way.
  static_cast<void>(
      ::setsockopt(socket.get(), SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off)));
  if (HoldsRights(socket.get()) || !live_.Admit(socket.get(), uid)) {
    closer_.Close(std::move(socket));
    return;
  }
  // The watch would outlive us otherwise. Fails when there is none.
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, socket.get(), nullptr);
  http2_(std::move(socket));
}

// A peek stops at the first piece with rights in it, and says that they did not
// fit into the room for them, which is none.
bool Acceptor::HoldsRights(int socket) {
  iovec iov{peek_.data(), peek_.size()};
  msghdr header{};
  header.msg_iov = &iov;
  header.msg_iovlen = 1;
  const ssize_t n = ::recvmsg(socket, &header, MSG_PEEK | MSG_DONTWAIT);
  return n <= 0 || (header.msg_flags & MSG_CTRUNC) != 0;
}

bool Acceptor::Watch(int fd, std::uint64_t id) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
  event.data.u64 = id;
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

UniqueFd Acceptor::Remove(UndecidedMap::iterator it) {
  UniqueFd socket = std::move(it->second.socket);
  const auto count = undecided_of_.find(it->second.uid);
  if (--count->second == 0) undecided_of_.erase(count);
  undecided_.erase(it);
  undecided_count_.store(undecided_.size(), std::memory_order_relaxed);
  return socket;
}

void Acceptor::Expire() {
  while (!undecided_.empty() && undecided_.begin()->second.deadline.Passed()) {
    closer_.Close(Remove(undecided_.begin()));
  }
  for (;;) {
    UniqueFd offer = offers_->TakeExpired();
    if (!offer.valid()) return;
    closer_.Close(std::move(offer));
  }
}

}  // namespace pos
