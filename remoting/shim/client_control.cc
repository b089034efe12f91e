// Attaching, and the control thread: bells, gate, detach, verdict, coming back.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "pos/base/clock.h"
#include "pos/base/futex.h"
#include "pos/base/log.h"
#include "remoting/shim/client.h"

namespace pos::shim {
namespace {

constexpr std::uint64_t kAttachTimeoutMs = 120'000;
constexpr std::uint64_t kInsideTimeoutMs = 3'000;
constexpr std::uint64_t kRejoinTimeoutMs = 60'000;
// How often a detached process looks for its verdict. Only then is there a
// tick; it bounds what this adds to the pause.
constexpr std::uint64_t kVerdictPollNs = 500'000;

std::string AttachPath() {
  // posd's socket, as `pos-cli run` hands it down.
  if (const char* path = ::secure_getenv("POS_ATTACH")) return path;
  return "/run/pos/attach.sock";
}

// Out of the way of programs that expect low numbers, and of those that close
// everything from 3 up to some small bound.
UniqueFd MoveHigh(UniqueFd fd) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto top = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1024));
  const int from = std::max(3, top - 64);
  UniqueFd high(::fcntl(fd.get(), F_DUPFD_CLOEXEC, from));
  return high.valid() ? std::move(high) : std::move(fd);
}

Result<UniqueFd> ConnectTo(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return Invalid("socket path is too long: " + path);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoStatus(errno, "socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                sizeof(address)) != 0) {
    return ErrnoStatus(errno, "connect to " + path);
  }
  return MoveHigh(std::move(fd));
}

// One record with the descriptors that came along. 0 bytes: end of file.
Result<std::size_t> ReceiveRecord(int socket, void* record, std::size_t bytes,
                                  std::span<UniqueFd> fds,
                                  std::uint64_t timeout_ms) {
  const Deadline deadline = Deadline::AfterMs(timeout_ms);
  for (;;) {
    pollfd p{socket, POLLIN, 0};
    const int rc = ::poll(&p, 1, deadline.LeftMs());
    if (rc == 0) return Timeout("posd does not answer");
    if (rc > 0) break;
    if (errno != EINTR) return ErrnoStatus(errno, "poll");
  }
  iovec iov{record, bytes};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 8)> control{};
  msghdr header{};
  header.msg_iov = &iov;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t n = 0;
  do {
    n = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return ErrnoStatus(errno, "receive");
  std::size_t next = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr;
       c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      UniqueFd owned(fd);
      if (next < fds.size()) fds[next++] = std::move(owned);
    }
  }
  return static_cast<std::size_t>(n);
}

Status ReserveRange(std::uint64_t base, std::uint64_t bytes, const char* what) {
  void* const wanted = reinterpret_cast<void*>(base);
  void* const got = ::mmap(
      wanted, bytes, PROT_NONE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == wanted) return {};
  if (got != MAP_FAILED) ::munmap(got, bytes);
  return Incompatible(
      std::string(what) + " at " + Hex(base) + " is in use in this program",
      "set arena.base or host_window.base in posd's "
      "configuration to another range");
}

Client* g_forked = nullptr;  // set once, by the process that attached

}  // namespace

Status Client::ReserveAddresses(const wire::AttachReply& reply) {
  if (reserved_) {
    // Coming back: the addresses are the session's for life.
    if (reply.arena_base == arena_base_ && reply.arena_bytes == arena_bytes_ &&
        reply.host_base == host_base_ && reply.host_bytes == host_bytes_) {
      return {};
    }
    return Incompatible("the runner serves other addresses than before");
  }
  POS_RETURN_IF_ERROR(
      ReserveRange(reply.arena_base, reply.arena_bytes, "device arena"));
  Status status =
      ReserveRange(reply.host_base, reply.host_bytes, "host window");
  if (!status.ok()) {
    ::munmap(reinterpret_cast<void*>(reply.arena_base), reply.arena_bytes);
    return status;
  }
  arena_base_ = reply.arena_base;
  arena_bytes_ = reply.arena_bytes;
  host_base_ = reply.host_base;
  host_bytes_ = reply.host_bytes;
  reserved_ = true;
  return {};
}

Status Client::Connect(const std::string& path,
                       const wire::AttachRequest& request,
                       wire::AttachReply* reply) {
  const Deadline deadline = Deadline::AfterMs(kAttachTimeoutMs);
  for (;;) {
    POS_ASSIGN_OR_RETURN(UniqueFd socket, ConnectTo(path));
    if (::send(socket.get(), &request, sizeof(request), MSG_NOSIGNAL) < 0) {
      return ErrnoStatus(errno, "send to posd");
    }
    std::array<UniqueFd, wire::kAttachFdCount> fds;
    POS_ASSIGN_OR_RETURN(const std::size_t n,
                         ReceiveRecord(socket.get(), reply, sizeof(*reply), fds,
                                       deadline.LeftNs() / 1'000'000));
    if (n == 0) return Closed("posd closed the connection");
    if (n != sizeof(*reply) || reply->magic != wire::kAttachMagic) {
      return Proto("posd sent something unexpected");
    }
    reply->text.back() = '\0';
    switch (reply->status) {
      case wire::AttachStatus::kRetry:
        if (deadline.Passed()) return Busy("the job is being checkpointed");
        socket.Reset();
        SleepNs(50'000'000);
        continue;
      case wire::AttachStatus::kRefused:
        return Denied(reply->text.data());
      case wire::AttachStatus::kGone:
        return Status(Code::kDeviceGone, reply->text.data());
      case wire::AttachStatus::kOk:
        break;
    }
    if (!fds.back().valid()) return Proto("posd sent too few descriptors");
    POS_RETURN_IF_ERROR(
        ring_.Map(fds[wire::kAttachRingFd].get(), reply->ring_map_bytes,
                  fds[wire::kAttachStagingFd].get(), reply->staging_bytes));
    socket_ = std::move(socket);
    bell_ = MoveHigh(std::move(fds[wire::kAttachBellFd]));
    host_file_ = MoveHigh(std::move(fds[wire::kAttachHostFd]));
    return {};
  }
}

Status Client::AttachLocked(std::string path, wire::AttachKind kind,
                            const wire::Token& token) {
  wire::AttachRequest request;
  request.kind = kind;
  request.token = token;
  wire::AttachReply reply;
  POS_RETURN_IF_ERROR(Connect(path, request, &reply));
  Status status = ReserveAddresses(reply);
  if (!status.ok()) {
    ring_.Unmap();
    socket_.Reset();
    bell_.Reset();
    host_file_.Reset();
    return status;
  }
  attach_path_ = std::move(path);
  staging_bytes_ = reply.staging_bytes;
  device_count_ = reply.device_count;
  ring_.SetRequestBase(std::uint64_t{attach_count_++} << 48);
  gate_.Prepare();
  return {};
}

Status Client::Attach() {
  if (state() == State::kAttached) return {};
  MutexLock lock(&attach_mu_);
  switch (state()) {
    case State::kAttached:
      return {};
    case State::kForked:
      return NotReady("forked from a process that used the device");
    case State::kLost:
      return Closed("the session's runner is gone");
    case State::kNone:
      break;
  }
  POS_RETURN_IF_ERROR(
      AttachLocked(AttachPath(), wire::AttachKind::kNew, wire::Token{}));
  InstallForkHandlers();
  SendRecord(wire::SessionRecordType::kReady, 0,
             reinterpret_cast<std::uint64_t>(&verdict_),
             static_cast<std::uint64_t>(::getpid()));
  state_.store(State::kAttached, std::memory_order_release);
  StartControlThread();
  return {};
}

void Client::InstallForkHandlers() {
  if (g_forked != nullptr) return;
  g_forked = this;
  ::pthread_atfork(nullptr, nullptr, [] {
    // Only this thread exists in the child. Shared memory was not inherited
    // (MADV_DONTFORK); the descriptors would keep the session alive.
    Client* const client = g_forked;
    if (client->state() == State::kNone) return;
    client->state_.store(State::kForked, std::memory_order_release);
    client->gate_.ClearOut();
    client->gate_.OpenDoor();
    client->socket_.Reset();
    client->bell_.Reset();
    client->host_file_.Reset();
  });
}

void Client::StartControlThread() {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  ::pthread_attr_setstacksize(&attributes, 256 * 1024);
  pthread_t thread;
  const int rc = ::pthread_create(
      &thread, &attributes,
      [](void* self) -> void* {
        static_cast<Client*>(self)->ControlLoop();
        return nullptr;
      },
      this);
  ::pthread_attr_destroy(&attributes);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (rc != 0) Lose("no thread for the session");
}

Status Client::MapHost(std::uint64_t address, std::uint64_t bytes) {
  // The descriptor changes hands only while no thread is inside.
  ThreadState* const thread = CurrentThread();
  gate_.Reenter(thread);
  void* const at =
      ::mmap(reinterpret_cast<void*>(address), bytes, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED, host_file_.get(),
             static_cast<off_t>(address - host_base_));
  const int error = errno;
  gate_.Leave(thread);
  if (at == MAP_FAILED) return ErrnoStatus(error, "map pinned memory");
  return {};
}

void Client::UnmapHost(std::uint64_t address, std::uint64_t bytes) {
  // Keeps the addresses reserved.
  ::mmap(reinterpret_cast<void*>(address), bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

// --- Control thread ---

bool Client::SendRecord(wire::SessionRecordType type, std::uint32_t epoch,
                        std::uint64_t a, std::uint64_t b) {
  const wire::SessionRecord record{type, epoch, a, b};
  return ::send(socket_.get(), &record, sizeof(record), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(sizeof(record));
}

void Client::ControlLoop() {
  ::pthread_setname_np(::pthread_self(), "pos-control");
  while (state() == State::kAttached) Serve();
}

void Client::Serve() {
  std::array<pollfd, 2> polls = {
      {{socket_.get(), POLLIN, 0}, {bell_.get(), POLLIN, 0}}};
  if (::poll(polls.data(), polls.size(), -1) < 0) return;
  if ((polls[1].revents & POLLIN) != 0) OnBell();
  if (polls[0].revents == 0) return;
  wire::SessionRecord record;
  const Result<std::size_t> n =
      ReceiveRecord(socket_.get(), &record, sizeof(record), {}, 0);
  if (!n.ok() || *n != sizeof(record)) {
    Lose("the runner of this session ended");
    return;
  }
  switch (record.type) {
    case wire::SessionRecordType::kGate:
      OnGate(record.epoch);
      break;
    case wire::SessionRecordType::kUngate:
      gate_.OpenDoor();
      break;
    case wire::SessionRecordType::kDetach:
      if (OnDetach(record.epoch)) {
        WaitForVerdict();
        Rejoin();
      }
      break;
    default:
      Lose("the runner sent something unexpected");
      break;
  }
}

void Client::OnBell() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = ::read(bell_.get(), &count, sizeof(count));
  WakeFinished();
}

void Client::WakeFinished() {
  ThreadRegistry::Get().ForEach([this](ThreadState* thread) {
    const std::uint32_t slot =
        thread->waiter.slot.load(std::memory_order_seq_cst);
    const bool done = slot != wire::kNoSlot &&
                      ring_.slot(slot).state.load(std::memory_order_acquire) ==
                          wire::kSlotDone;
    if (!done && !thread->waiter.for_lease.load(std::memory_order_seq_cst)) {
      return;
    }
    thread->waiter.word.store(1, std::memory_order_seq_cst);
    FutexWake(&thread->waiter.word, FutexScope::kPrivate);
  });
}

void Client::SaveAnswers() {
  answers_.clear();
  const std::uint32_t count = std::min(ring_.slot_count(), kMaxSlots);
  for (std::uint32_t i = 0; i < count; ++i) {
    const wire::ReplySlot& slot = ring_.slot(i);
    if (!slot_used_[i].load(std::memory_order_acquire) ||
        slot.state.load(std::memory_order_acquire) != wire::kSlotDone) {
      continue;
    }
    answers_.push_back(
        {i, slot.result, slot.bytes, slot.flags, slot.bulk_bytes, slot.data});
  }
}

void Client::RestoreSlots() {
  // Calls that were under way: their answers come to the slots they had. Marked
  // as parked, whether or not somebody looks: a bell too many does no harm.
  const std::uint32_t count = std::min(ring_.slot_count(), kMaxSlots);
  for (std::uint32_t i = 0; i < count; ++i) {
    if (slot_used_[i].load(std::memory_order_acquire)) {
      ring_.slot(i).state.store(wire::kSlotParked, std::memory_order_release);
    }
  }
  for (const Answer& answer : answers_) {
    wire::ReplySlot& slot = ring_.slot(answer.slot);
    slot.result = answer.result;
    slot.bytes = answer.bytes;
    slot.flags = answer.flags;
    slot.bulk_bytes = answer.bulk_bytes;
    slot.data = answer.data;
    slot.state.store(wire::kSlotDone, std::memory_order_release);
  }
  answers_.clear();
}

void Client::OnGate(std::uint32_t epoch) {
  gate_.CloseDoor();
  const int inside = gate_.WaitUntilEmpty(Deadline::AfterMs(kInsideTimeoutMs));
  if (inside != 0) {
    gate_.OpenDoor();
    SendRecord(wire::SessionRecordType::kRefusing, epoch,
               static_cast<std::uint64_t>(inside), 0);
    return;
  }
  SendRecord(wire::SessionRecordType::kGated, epoch, 0, 0);
}

bool Client::OnDetach(std::uint32_t epoch) {
  gate_.SetOut();
  const int inside = gate_.WaitUntilEmpty(Deadline::AfterMs(kInsideTimeoutMs));
  if (inside != 0) {
    gate_.ClearOut();
    SendRecord(wire::SessionRecordType::kRefusing, epoch,
               static_cast<std::uint64_t>(inside), 1);
    return false;
  }
  // What lies in shared memory and is nobody else's: answers that have come and
  // were not fetched, and staging that holds what is yet to be sent or fetched.
  // Its owner may stand at the door, and cannot be waited for.
  SaveAnswers();
  slots_before_ = ring_.slot_count();
  leases_.Save(&ring_);
  // The verdict stays as it is: if the runner ends while this is under way, it
  // may have been written already (see VerdictCame).
  left_epoch_ = epoch;
  ring_.Unmap();
  bell_.Reset();
  host_file_.Reset();
  const bool said = SendRecord(wire::SessionRecordType::kDetached, epoch, 0, 0);
  // The end of the connection is what tells the runner that all is gone.
  socket_.Reset();
  if (!said) Lose("the runner of this session ended");
  return said;
}

// Whether the verdict is for this absence. One that was written twice can come
// when the client is back already: its token has been used, or its epoch is
// that of an earlier absence. Epoch 0 is a restore's, which counts anew.
bool Client::VerdictCame() {
  const std::atomic_ref<std::uint32_t> word(verdict_.word);
  if (word.load(std::memory_order_acquire) == wire::kVerdictNone) return false;
  if (verdict_.epoch != 0 && verdict_.epoch < left_epoch_) return false;
  return std::any_of(verdict_.token.begin(), verdict_.token.end(),
                     [](std::uint8_t byte) { return byte != 0; });
}

void Client::WaitForVerdict() {
  // Written from outside, by process_vm_writev, which cannot wake a futex of
  // ours: looked at in short intervals.
  while (!VerdictCame()) SleepNs(kVerdictPollNs);
}

void Client::Rejoin() {
  verdict_.path.back() = '\0';
  const Deadline deadline = Deadline::AfterMs(kRejoinTimeoutMs);
  Status status;
  {
    MutexLock lock(&attach_mu_);
    do {
      status = AttachLocked(verdict_.path.data(), wire::AttachKind::kResume,
                            verdict_.token);
      if (status.ok() || status.code() == Code::kDeviceGone) break;
      // A posd that was started again writes another path and token.
      SleepNs(20'000'000);
    } while (!deadline.Passed());
  }
  // A token is good once and never part of an image.
  verdict_.token = {};
  if (!status.ok()) {
    Lose(status.message().c_str());
    return;
  }
  if (ring_.slot_count() < slots_before_) {
    Lose("the runner has fewer reply slots than the one before");
    return;
  }
  RestoreSlots();
  if (Status restored = leases_.Restore(&ring_); !restored.ok()) {
    Lose(restored.message().c_str());
    return;
  }
  // For the next absence. Before READY: nobody asks for one sooner, and a
  // verdict for it, which may come before the request is read, must stay.
  std::atomic_ref<std::uint32_t>(verdict_.word)
      .store(wire::kVerdictNone, std::memory_order_release);
  gate_.ClearOut();
  WakeFinished();
  SendRecord(wire::SessionRecordType::kReady, verdict_.epoch,
             reinterpret_cast<std::uint64_t>(&verdict_),
             static_cast<std::uint64_t>(::getpid()));
}

void Client::Lose(const char* why) {
  Log(LogLevel::kError, "session lost: calls to the device fail from now on",
      {{"why", why}});
  state_.store(State::kLost, std::memory_order_seq_cst);
  if (ring_.mapped()) ring_.MarkClosed();
  gate_.ClearOut();
  gate_.OpenDoor();
  ThreadRegistry::Get().ForEach([](ThreadState* thread) {
    thread->waiter.word.store(1, std::memory_order_seq_cst);
    FutexWake(&thread->waiter.word, FutexScope::kPrivate);
  });
}

}  // namespace pos::shim
