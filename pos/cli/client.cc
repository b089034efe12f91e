// The one file of pos-cli's that includes gRPC.
#include "pos/cli/client.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "pos/base/clock.h"
#include "pos/daemon/api_text.h"
#include "pos/daemon/pos.grpc.pb.h"

namespace pos::cli {
namespace {

// Errors travel in headers; the default is 8 KiB.
constexpr int kMaxMetadataBytes = 64 * 1024;
constexpr int kNoDeadline = 0;

using Stub = v1::Pos::Stub;

void BeQuiet(gpr_log_func_args* /*args*/) {}

// What is wrong with the socket at `path`, in words for whoever typed it.
Status ExplainConnect(const std::string& path, const Status& status) {
  switch (status.code()) {
    case Code::kNoSuch:
    case Code::kClosed:
      return {Code::kNoSuch, "no posd at " + path,
              "start one with `posd --socket " + path +
                  "`, or name another with --socket or POS_SOCKET"};
    case Code::kDenied:
      return {Code::kDenied, "you may not connect to posd at " + path,
              "ask its owner, or name another socket with --socket"};
    case Code::kTimeout:
      return {Code::kTimeout, "posd at " + path + " does not answer",
              "it may be overloaded or stopped; look at its log"};
    default:
      return status;
  }
}

// Without a v1::Error the status is gRPC's own.
Status FromGrpc(const grpc::Status& status, const std::string& path) {
  if (status.ok()) return {};
  v1::Error error;
  if (!status.error_details().empty() &&
      error.ParseFromString(status.error_details())) {
    return FromError(error);
  }
  switch (status.error_code()) {
    case grpc::StatusCode::CANCELLED:
      return Aborted("cancelled");
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return ExplainConnect(path, Timeout(""));
    case grpc::StatusCode::UNAVAILABLE:
      return Closed("the connection to posd at " + path + " broke",
                    "look whether posd is running, and at its log");
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return Busy("posd at " + path + ": " + status.error_message(),
                  "try again later");
    case grpc::StatusCode::UNIMPLEMENTED:
      return Incompatible("posd at " + path + " does not know this command",
                          "it is of another version: restart it");
    default:
      return Internal("posd at " + path + ": " + status.error_message());
  }
}

// For the time of one call.
class Scope {
 public:
  Scope(int deadline_ms, Cancellation* cancel) : cancel_(cancel) {
    if (deadline_ms != kNoDeadline) {
      context_.set_deadline(std::chrono::system_clock::now() +
                            std::chrono::milliseconds(deadline_ms));
    }
    if (cancel_ != nullptr) {
      cancel_->Attach([this] { context_.TryCancel(); });
    }
  }
  ~Scope() {
    if (cancel_ != nullptr) cancel_->Detach();
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  grpc::ClientContext* context() { return &context_; }

 private:
  grpc::ClientContext context_;
  Cancellation* const cancel_;
};

}  // namespace

void Cancellation::Cancel() {
  MutexLock lock(&mu_);
  cancelled_ = true;
  if (cancel_) cancel_();
}

bool Cancellation::cancelled() const {
  MutexLock lock(&mu_);
  return cancelled_;
}

void Cancellation::Attach(std::function<void()> cancel) {
  MutexLock lock(&mu_);
  cancel_ = std::move(cancel);
  if (cancelled_) cancel_();
}

void Cancellation::Detach() {
  MutexLock lock(&mu_);
  cancel_ = nullptr;
}

struct PosClient::Impl {
  template <typename Request, typename Reply>
  Result<Reply> Unary(grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                   const Request&, Reply*),
                      const Request& request, int deadline_ms,
                      Cancellation* cancel) {
    Scope scope(deadline_ms, cancel);
    Reply reply;
    const Status status =
        FromGrpc((stub.get()->*method)(scope.context(), request, &reply), path);
    if (!status.ok()) return status;
    return reply;
  }

  // Reads progress until the result.
  template <typename Value, typename Request, typename Reply>
  Result<Value> Stream(std::unique_ptr<grpc::ClientReader<Reply>> (
                           Stub::*method)(grpc::ClientContext*, const Request&),
                       const Request& request, const OnProgress& progress,
                       Cancellation* cancel) {
    Scope scope(kNoDeadline, cancel);
    const auto reader = (stub.get()->*method)(scope.context(), request);
    Reply reply;
    Value value;
    bool have_value = false;
    while (reader->Read(&reply)) {
      if (reply.has_progress()) progress(reply.progress());
      if (reply.has_result()) {
        value = reply.result();
        have_value = true;
      }
    }
    const Status status = FromGrpc(reader->Finish(), path);
    if (!status.ok()) return status;
    if (!have_value) return Proto("posd at " + path + " gave no result");
    return value;
  }

  std::string path;
  std::unique_ptr<Stub> stub;
};

PosClient::PosClient(std::string path)
    : path_(std::move(path)), impl_(std::make_unique<Impl>()) {
  impl_->path = path_;
}

PosClient::~PosClient() = default;

Result<std::unique_ptr<PosClient>> PosClient::Connect(const std::string& path) {
  // gRPC's own words are for its developers; what matters comes as a status.
  if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function(BeQuiet);
  const Deadline deadline = Deadline::AfterMs(kConnectMs);
  Result<UniqueFd> socket = ConnectToPosd(path, kConnectMs);
  if (!socket.ok()) return ExplainConnect(path, socket.status());
  POS_RETURN_IF_ERROR(SetNonBlocking(socket->get(), true));
  std::unique_ptr<PosClient> client(new PosClient(path));
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  arguments.SetMaxReceiveMessageSize(-1);
  // One connection and no other: a call ends with the posd that it went to.
  client->impl_->stub =
      v1::Pos::NewStub(grpc::CreateCustomInsecureChannelFromFd(
          "localhost", socket->Release(), arguments));
  const Result<v1::HelloReply> hello =
      client->impl_->Unary(&Stub::Hello, v1::HelloRequest(),
                           std::max(deadline.LeftMs(), 1), nullptr);
  if (!hello.ok()) return hello.status();
  client->version_ = hello->version();
  return client;
}

Result<UniqueFd> PosClient::Offer(const Ticket& ticket,
                                  const std::array<int, 3>& fds) {
  return OfferStdio(path_, ticket, fds, kConnectMs);
}

Result<v1::RunReply> PosClient::Run(const v1::RunRequest& request,
                                    Cancellation* cancel) {
  return impl_->Unary(&Stub::Run, request, kNoDeadline, cancel);
}

Result<v1::WaitReply> PosClient::Wait(const v1::WaitRequest& request,
                                      Cancellation* cancel) {
  return impl_->Unary(&Stub::Wait, request, kNoDeadline, cancel);
}

Status PosClient::Signal(const v1::SignalRequest& request) {
  return impl_->Unary(&Stub::Signal, request, kShortCallMs, nullptr).status();
}

Status PosClient::SetTerminal(const v1::SetTerminalRequest& request) {
  return impl_->Unary(&Stub::SetTerminal, request, kShortCallMs, nullptr)
      .status();
}

Result<v1::PsReply> PosClient::Ps(const v1::PsRequest& request) {
  return impl_->Unary(&Stub::Ps, request, kShortCallMs, nullptr);
}

Status PosClient::Logs(const v1::LogsRequest& request,
                       const std::function<bool(std::string_view)>& data,
                       Cancellation* cancel) {
  Scope scope(kNoDeadline, cancel);
  const auto reader = impl_->stub->Logs(scope.context(), request);
  v1::LogsReply reply;
  bool ended = false;
  while (reader->Read(&reply)) {
    if (data(reply.data())) continue;
    ended = true;
    scope.context()->TryCancel();
    break;
  }
  const Status status = FromGrpc(reader->Finish(), path_);
  return ended ? Status() : status;
}

Result<v1::StopReply> PosClient::Stop(const v1::StopRequest& request,
                                      Cancellation* cancel) {
  return impl_->Unary(&Stub::Stop, request, kNoDeadline, cancel);
}

Result<v1::DevicesReply> PosClient::Devices() {
  return impl_->Unary(&Stub::Devices, v1::DevicesRequest(), kShortCallMs,
                      nullptr);
}

Result<v1::CheckReply> PosClient::Check(Cancellation* cancel) {
  return impl_->Unary(&Stub::Check, v1::CheckRequest(), kNoDeadline, cancel);
}

Result<v1::CheckpointResult> PosClient::Checkpoint(
    const v1::CheckpointRequest& request, const OnProgress& progress,
    Cancellation* cancel) {
  return impl_->Stream<v1::CheckpointResult>(&Stub::Checkpoint, request,
                                             progress, cancel);
}

Result<v1::RestoreResult> PosClient::Restore(const v1::RestoreRequest& request,
                                             const OnProgress& progress,
                                             Cancellation* cancel) {
  return impl_->Stream<v1::RestoreResult>(&Stub::Restore, request, progress,
                                          cancel);
}

Result<v1::ListImagesReply> PosClient::ListImages() {
  return impl_->Unary(&Stub::ListImages, v1::ListImagesRequest(), kShortCallMs,
                      nullptr);
}

Result<v1::ShowImageReply> PosClient::ShowImage(
    const v1::ShowImageRequest& request) {
  return impl_->Unary(&Stub::ShowImage, request, kShortCallMs, nullptr);
}

Result<v1::VerifyResult> PosClient::VerifyImage(
    const v1::VerifyImageRequest& request, const OnProgress& progress,
    Cancellation* cancel) {
  return impl_->Stream<v1::VerifyResult>(&Stub::VerifyImage, request, progress,
                                         cancel);
}

Status PosClient::RemoveImage(const v1::RemoveImageRequest& request,
                              Cancellation* cancel) {
  return impl_->Unary(&Stub::RemoveImage, request, kNoDeadline, cancel)
      .status();
}

Result<v1::DiffImagesReply> PosClient::DiffImages(
    const v1::DiffImagesRequest& request, Cancellation* cancel) {
  return impl_->Unary(&Stub::DiffImages, request, kNoDeadline, cancel);
}

Result<v1::CollectGarbageReply> PosClient::CollectGarbage(
    Cancellation* cancel) {
  return impl_->Unary(&Stub::CollectGarbage, v1::CollectGarbageRequest(),
                      kNoDeadline, cancel);
}

Result<v1::ExportResult> PosClient::ExportImage(
    const v1::ExportImageRequest& request, const OnProgress& progress,
    Cancellation* cancel) {
  return impl_->Stream<v1::ExportResult>(&Stub::ExportImage, request, progress,
                                         cancel);
}

Result<v1::ImportResult> PosClient::ImportImage(
    const v1::ImportImageRequest& request, const OnProgress& progress,
    Cancellation* cancel) {
  return impl_->Stream<v1::ImportResult>(&Stub::ImportImage, request, progress,
                                         cancel);
}

Status PosClient::SetSeries(const v1::SetSeriesRequest& request) {
  return impl_->Unary(&Stub::SetSeries, request, kShortCallMs, nullptr)
      .status();
}

}  // namespace pos::cli
