// The one file of posd's that includes gRPC.
#include "pos/daemon/service.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_posix.h>

#include <charconv>
#include <chrono>
#include <cstring>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "pos/base/log.h"
#include "pos/base/mutex.h"
#include "pos/daemon/api_text.h"
#include "pos/daemon/pos_service.h"
#include "pos/daemon/socket_file.h"

namespace pos {
namespace {

// An environment and arguments have at most 6 MiB (execve(2)).
constexpr int kMaxRequestBytes = 8 << 20;
constexpr int kMaxStreamsPerConnection = 128;
constexpr std::size_t kMaxBufferBytes = 512u << 20;
constexpr std::size_t kMaxShortMessageBytes = 200;

grpc::StatusCode GrpcCode(Code code) {
  switch (code) {
    case Code::kOk:
      return grpc::StatusCode::OK;
    case Code::kInvalid:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case Code::kNoSuch:
      return grpc::StatusCode::NOT_FOUND;
    case Code::kExists:
      return grpc::StatusCode::ALREADY_EXISTS;
    case Code::kDenied:
      return grpc::StatusCode::PERMISSION_DENIED;
    case Code::kTimeout:
      return grpc::StatusCode::DEADLINE_EXCEEDED;
    case Code::kBusy:
    case Code::kOutOfMemory:
    case Code::kDiskFull:
      return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case Code::kNotReady:
    case Code::kIncompatible:
      return grpc::StatusCode::FAILED_PRECONDITION;
    case Code::kCorrupt:
      return grpc::StatusCode::DATA_LOSS;
    case Code::kAborted:
    case Code::kClosed:
      return grpc::StatusCode::ABORTED;
    case Code::kProto:
    case Code::kCriu:
    case Code::kDeviceGone:
    case Code::kInternal:
      break;
  }
  return grpc::StatusCode::INTERNAL;
}

}  // namespace

grpc::Status ToGrpc(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const v1::Error error = ToError(status);
  return {GrpcCode(status.code()),
          Shorten(error.message(), kMaxShortMessageBytes),
          error.SerializeAsString()};
}

// Of the connection that the call came on; see the header.
Result<Caller> CallerOf(const grpc::ServerContext& context) {
  const std::string peer = context.peer();
  constexpr std::string_view kPrefix = "fd:";
  int fd = -1;
  if (peer.compare(0, kPrefix.size(), kPrefix) != 0) {
    return Denied("the caller of this connection is not known: " + peer);
  }
  const char* const end = peer.data() + peer.size();
  const auto parsed = std::from_chars(peer.data() + kPrefix.size(), end, fd);
  if (parsed.ec != std::errc() || parsed.ptr != end || fd < 0) {
    return Denied("the caller of this connection is not known: " + peer);
  }
  Result<Caller> caller = PeerOf(fd);
  if (!caller.ok()) return Denied(caller.status().message());
  return caller;
}

Result<StdioFds> TakeStdio(OfferTable* offers, const Caller& caller,
                           const std::string& bytes) {
  if (bytes.empty()) return StdioFds{};
  Ticket ticket;
  if (bytes.size() != ticket.size()) {
    return Invalid("a ticket has " + std::to_string(ticket.size()) +
                   " bytes, not " + std::to_string(bytes.size()));
  }
  std::memcpy(ticket.data(), bytes.data(), bytes.size());
  POS_ASSIGN_OR_RETURN(const UniqueFd connection,
                       offers->Take(caller.uid, ticket));
  return ReceiveOffer(connection.get());
}

namespace {

void LogFromGrpc(gpr_log_func_args* args) {
  const LogLevel level = args->severity == GPR_LOG_SEVERITY_ERROR
                             ? LogLevel::kWarning
                             : LogLevel::kDebug;
  if (level < GetLogLevel()) return;
  Log(level, "gRPC", {{"said", args->message}});
}

// What a call that does not return keeps alive.
struct Core {
  Core(ControlApi* api, const ControlService::Options& options)
      : offers(options.offers), service(api, &offers, options) {}

  OfferTable offers;
  PosService service;
  std::unique_ptr<grpc::Server> server;
  Mutex mu;
  CondVar changed;
  bool ended POS_GUARDED_BY(mu) = false;
};

class ServiceImpl final : public ControlService {
 public:
  ServiceImpl(ControlApi* api, const Options& options)
      : options_(options), core_(std::make_shared<Core>(api, options)) {}
  ~ServiceImpl() override { ServiceImpl::Stop().IgnoreError(); }

  Status Begin();
  Status Stop() override;

 private:
  const Options options_;
  std::shared_ptr<Core> core_;
  std::unique_ptr<SocketFile> file_;
  std::unique_ptr<Acceptor> acceptor_;
  bool stopped_ = false;
  Status stop_status_;
};

Status ServiceImpl::Begin() {
  POS_ASSIGN_OR_RETURN(
      file_, SocketFile::Listen(options_.socket_path, options_.socket_mode));
  gpr_set_log_function(LogFromGrpc);
  grpc::ServerBuilder builder;
  builder.RegisterService(&core_->service);
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, options_.idle_ms);
  grpc::ResourceQuota quota("posd");
  quota.Resize(kMaxBufferBytes);
  // Threads that wait for work come on top of those in calls; CallGate answers
  // those that are one too many.
  quota.SetMaxThreads(static_cast<int>(options_.calls_total) + 64);
  builder.SetResourceQuota(quota);
  using Option = grpc::ServerBuilder::SyncServerOption;
  builder.SetSyncServerOption(Option::NUM_CQS, 1);
  builder.SetSyncServerOption(Option::MIN_POLLERS, 1);
  builder.SetSyncServerOption(Option::MAX_POLLERS, 2);
  core_->server = builder.BuildAndStart();
  if (core_->server == nullptr) return Internal("gRPC cannot start a server");
  POS_ASSIGN_OR_RETURN(
      acceptor_,
      Acceptor::Start(file_->fd(), &core_->offers, options_.connections,
                      [server = core_->server.get()](UniqueFd connection) {
                        grpc::AddInsecureChannelFromFd(server,
                                                       connection.Release());
                      }));
  return {};
}

Status ServiceImpl::Stop() {
  if (stopped_) return stop_status_;
  stopped_ = true;
  core_->service.BeginStop();
  acceptor_.reset();
  file_.reset();
  if (core_->server == nullptr) return {};
  const auto drain_until = std::chrono::system_clock::now() +
                           std::chrono::milliseconds(options_.drain_ms);
  const auto end = [core = core_, drain_until] {
    core->server->Shutdown(drain_until);  // returns when no call is left
    MutexLock lock(&core->mu);
    core->ended = true;
    core->changed.NotifyAll();
  };
  std::thread ender;
  try {
    ender = std::thread(end);
  } catch (const std::system_error&) {
    end();  // without a bound, but not without ending
    return {};
  }
  const Deadline deadline = Deadline::AfterMs(
      static_cast<std::uint64_t>(options_.drain_ms + options_.stop_ms));
  bool ended = false;
  {
    MutexLock lock(&core_->mu);
    while (!core_->ended && !deadline.Passed()) {
      core_->changed.WaitFor(&core_->mu,
                             std::chrono::nanoseconds(deadline.LeftNs()));
    }
    ended = core_->ended;
  }
  if (ended) {
    ender.join();
    return {};
  }
  // The thread holds a reference to the core; this one is never given back.
  ender.detach();
  new std::shared_ptr<Core>(core_);
  stop_status_ = Timeout("a call did not return");
  POS_LOG(kError, "stopping without a call that does not return");
  return stop_status_;
}

}  // namespace

Result<std::unique_ptr<ControlService>> ControlService::Start(
    ControlApi* api, const Options& options) {
  auto service = std::make_unique<ServiceImpl>(api, options);
  POS_RETURN_IF_ERROR(service->Begin());
  return std::unique_ptr<ControlService>(std::move(service));
}

}  // namespace pos
