#include "pos/job/client.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <utility>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/process.h"
#include "pos/job/messages.h"

extern char** environ;

namespace pos::job {
namespace {

constexpr int kHelloTimeoutMs = 20000;
constexpr int kReapTimeoutMs = 5000;
constexpr int kReapSliceMs = 50;
constexpr int kChannelFd = 3;
constexpr std::uint64_t kGivenUpPollNs = 50'000'000;

Result<UniqueFd> SealedMemfd(const std::string& content) {
  UniqueFd fd(
      ::memfd_create("pos-job-config", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoStatus(errno, "memfd_create");
  POS_RETURN_IF_ERROR(WriteFull(fd.get(), std::as_bytes(std::span(content)),
                                "the job's configuration"));
  if (::fcntl(fd.get(), F_ADD_SEALS,
              F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "seal the job's configuration");
  }
  return fd;
}

Result<pid_t> SpawnProgram(const std::string& program, int channel) {
  std::string path = program;
  std::string option = "--channel";
  std::string number = std::to_string(kChannelFd);
  const std::array<char*, 4> argv = {path.data(), option.data(), number.data(),
                                     nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  // dup2 onto itself clears close-on-exec, too.
  ::posix_spawn_file_actions_adddup2(&actions, channel, kChannelFd);
  pid_t pid = -1;
  const int rc = ::posix_spawn(&pid, program.c_str(), &actions, nullptr,
                               argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (rc != 0) return ErrnoStatus(rc, "run " + program);
  return pid;
}

}  // namespace

JobClient::JobClient(UniqueFd socket, pid_t child, Handlers handlers)
    : channel_(std::move(socket)),
      child_(child),
      handlers_(std::move(handlers)) {}

Result<std::unique_ptr<JobClient>> JobClient::Spawn(const std::string& program,
                                                    const JobConfig& config,
                                                    std::span<const int> fds,
                                                    Handlers handlers) {
  UniqueFd ours;
  UniqueFd theirs;
  POS_RETURN_IF_ERROR(ControlChannel::MakePair(&ours, &theirs));
  POS_ASSIGN_OR_RETURN(const UniqueFd memfd,
                       SealedMemfd(config.SerializeAsString()));
  POS_ASSIGN_OR_RETURN(const pid_t pid, SpawnProgram(program, theirs.get()));
  theirs.Reset();
  std::unique_ptr<JobClient> client(
      new JobClient(std::move(ours), pid, std::move(handlers)));
  std::vector<int> sent = {memfd.get()};
  sent.insert(sent.end(), fds.begin(), fds.end());
  Begin begin;
  begin.set_version(kProtocolVersion);
  Status status = SendMessage(&client->channel_, begin, sent);
  if (status.ok()) status = client->Handshake();
  if (!status.ok()) {  // a job that nobody knows of must not run
    ::kill(pid, SIGKILL);
    client->Reap(kReapTimeoutMs);
    return status.WithContext("start pos-job");
  }
  return client;
}

Result<std::unique_ptr<JobClient>> JobClient::Connect(
    const std::string& directory, Handlers handlers) {
  POS_ASSIGN_OR_RETURN(UniqueFd socket, ControlChannel::Connect(
                                            JoinPath(directory, "job.sock")));
  std::unique_ptr<JobClient> client(
      new JobClient(std::move(socket), 0, std::move(handlers)));
  POS_RETURN_IF_ERROR(client->Handshake());
  return client;
}

Status JobClient::Handshake() {
  POS_ASSIGN_OR_RETURN(const ControlChannel::Message message,
                       channel_.Receive(kHelloTimeoutMs));
  POS_ASSIGN_OR_RETURN(const FromJob first,
                       ParseMessage<FromJob>(message.bytes));
  if (!first.has_hello()) return Proto("pos-job did not say Hello");
  hello_ = first.hello();
  {
    // Ids of different posds must not be confused: a reply to an earlier one
    // may still arrive.
    MutexLock lock(&mu_);
    RandomBytes(std::as_writable_bytes(std::span(&next_id_, 1)));
    next_id_ >>= 16;
  }
  reader_ = std::thread([this] { Read(); });
  return {};
}

JobClient::~JobClient() {
  ending_.store(true, std::memory_order_relaxed);
  channel_.Shutdown();
  if (reader_.joinable()) reader_.join();
  Reap(0);
}

void JobClient::Read() {
  for (;;) {
    Result<ControlChannel::Message> message = channel_.Receive(-1);
    if (!message.ok()) break;
    const Result<FromJob> parsed = ParseMessage<FromJob>(message->bytes);
    if (!parsed.ok()) break;
    if (parsed->has_event()) {
      if (handlers_.event) handlers_.event(parsed->event());
    } else if (parsed->has_reply()) {
      HandleReply(parsed->reply(), message->fds.empty()
                                       ? UniqueFd()
                                       : std::move(message->fds[0]));
    }
  }
  channel_.Shutdown();
  FailWaiters();
  if (handlers_.closed) handlers_.closed();
  Reap(kReapTimeoutMs);
}

void JobClient::HandleReply(const Reply& reply, UniqueFd fd) {
  {
    MutexLock lock(&mu_);
    const auto it = waiters_.find(reply.id());
    if (it != waiters_.end()) {
      it->second->done = true;
      it->second->reply = reply;
      it->second->fd = std::move(fd);
      answered_.NotifyAll();
      return;
    }
  }
  if (handlers_.stray_reply) handlers_.stray_reply(reply);
}

void JobClient::FailWaiters() {
  MutexLock lock(&mu_);
  closed_ = true;
  for (auto& [id, waiter] : waiters_) {
    if (waiter->done) continue;
    waiter->done = true;
    waiter->status = Closed("the connection with pos-job is gone");
  }
  answered_.NotifyAll();
}

Result<Reply> JobClient::Call(ToJob request, std::span<const int> fds,
                              int timeout_ms, UniqueFd* opened,
                              const std::atomic<bool>* given_up) {
  Waiter waiter;
  {
    MutexLock lock(&mu_);
    if (closed_) return Closed("the connection with pos-job is gone");
    request.set_id(++next_id_);
    waiters_[request.id()] = &waiter;
  }
  Status status = SendMessage(&channel_, request, fds);
  const Deadline deadline =
      Deadline::AfterMs(static_cast<std::uint64_t>(std::max(timeout_ms, 0)));
  MutexLock lock(&mu_);
  while (status.ok() && !waiter.done && !deadline.Passed()) {
    std::uint64_t wait_ns = deadline.LeftNs();
    if (given_up != nullptr) {
      if (given_up->load(std::memory_order_relaxed)) break;
      wait_ns = std::min(wait_ns, kGivenUpPollNs);
    }
    answered_.WaitFor(&mu_, std::chrono::nanoseconds(wait_ns));
  }
  waiters_.erase(request.id());
  POS_RETURN_IF_ERROR(status);
  if (!waiter.done) {
    return deadline.Passed() ? Timeout("pos-job did not answer within " +
                                       std::to_string(timeout_ms) + " ms")
                             : Timeout("pos-job is not waited for any more");
  }
  POS_RETURN_IF_ERROR(waiter.status);
  if (waiter.reply.has_error()) return FromMessage(waiter.reply.error());
  if (opened != nullptr) *opened = std::move(waiter.fd);
  return std::move(waiter.reply);
}

Result<std::uint64_t> JobClient::Post(ToJob request, std::span<const int> fds) {
  {
    MutexLock lock(&mu_);
    if (closed_) return Closed("the connection with pos-job is gone");
    request.set_id(++next_id_);
  }
  POS_RETURN_IF_ERROR(SendMessage(&channel_, request, fds));
  return request.id();
}

Status JobClient::AckExit() {
  ToJob request;
  request.mutable_ack_exit();
  return Post(std::move(request), {}).status();
}

void JobClient::Reap(int timeout_ms) {
  if (child_ <= 0) return;
  const Result<UniqueFd> pidfd = OpenPidFd(child_);
  if (!pidfd.ok()) return;
  const Deadline deadline =
      Deadline::AfterMs(static_cast<std::uint64_t>(timeout_ms));
  // In slices, so that the destructor need not wait for a job that goes on.
  while (!WaitPidFd(pidfd->get(), std::min(deadline.LeftMs(), kReapSliceMs))) {
    if (deadline.Passed() || ending_.load(std::memory_order_relaxed)) return;
  }
  int status = 0;
  if (::waitpid(child_, &status, WNOHANG) != 0) child_ = 0;
}

}  // namespace pos::job
