// The gRPC service of posd: one method per call of pos.proto, each of which
// finds out who is calling and asks the ControlApi. Included by service.cc
// alone.
//
// Threads: gRPC's, any number at once.
#ifndef POS_DAEMON_POS_SERVICE_H_
#define POS_DAEMON_POS_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

#include "pos/base/status.h"
#include "pos/daemon/api_text.h"
#include "pos/daemon/call_gate.h"
#include "pos/daemon/control_api.h"
#include "pos/daemon/latest_sender.h"
#include "pos/daemon/offer_table.h"
#include "pos/daemon/pos.grpc.pb.h"
#include "pos/daemon/service.h"

namespace pos {

// The status with a v1::Error as its details.
[[nodiscard]] grpc::Status ToGrpc(const Status& status);
// Of the connection that the call came on; see service.h.
[[nodiscard]] Result<Caller> CallerOf(const grpc::ServerContext& context);
// The descriptors that the caller has offered under the ticket `bytes`; none
// when it is empty.
[[nodiscard]] Result<StdioFds> TakeStdio(OfferTable* offers,
                                         const Caller& caller,
                                         const std::string& bytes);

class PosService final : public v1::Pos::Service {
 public:
  PosService(ControlApi* api, OfferTable* offers,
             const ControlService::Options& options)
      : api_(api),
        offers_(offers),
        gate_(options.calls_per_uid, options.calls_total) {}

  // Calls in progress are cancelled from now on.
  void BeginStop() { stopping_.store(true); }

  grpc::Status Hello(grpc::ServerContext* context,
                     const v1::HelloRequest* /*request*/,
                     v1::HelloReply* reply) override {
    return Guard(context, [&](const Caller&) -> Status {
      reply->set_version(POS_VERSION);
      return {};
    });
  }
  grpc::Status Run(grpc::ServerContext* context, const v1::RunRequest* request,
                   v1::RunReply* reply) override {
    return Answer(context, reply, [&](const Caller& caller) {
      Result<StdioFds> stdio = TakeStdio(offers_, caller, request->ticket());
      if (!stdio.ok()) return Result<v1::RunReply>(stdio.status());
      return api_->Run(caller, *request, std::move(*stdio));
    });
  }
  grpc::Status Wait(grpc::ServerContext* context,
                    const v1::WaitRequest* request,
                    v1::WaitReply* reply) override {
    return Answer(context, reply, [&](const Caller& caller) {
      return api_->Wait(caller, *request, Cancelled(context));
    });
  }
  grpc::Status Signal(grpc::ServerContext* context,
                      const v1::SignalRequest* request,
                      v1::SignalReply* /*reply*/) override {
    return Guard(context, [&](const Caller& caller) {
      return api_->Signal(caller, *request);
    });
  }
  grpc::Status SetTerminal(grpc::ServerContext* context,
                           const v1::SetTerminalRequest* request,
                           v1::SetTerminalReply* /*reply*/) override {
    return Guard(context, [&](const Caller& caller) {
      return api_->SetTerminal(caller, *request);
    });
  }
  grpc::Status Ps(grpc::ServerContext* context, const v1::PsRequest* request,
                  v1::PsReply* reply) override {
    return Answer(context, reply, [&](const Caller& caller) {
      return api_->Ps(caller, *request);
    });
  }
  grpc::Status Logs(grpc::ServerContext* context,
                    const v1::LogsRequest* request,
                    grpc::ServerWriter<v1::LogsReply>* writer) override {
    return Guard(context, [&](const Caller& caller) {
      return api_->Logs(
          caller, *request,
          [writer](std::string_view data) { return WriteLog(writer, data); },
          Cancelled(context));
    });
  }
  grpc::Status Stop(grpc::ServerContext* context,
                    const v1::StopRequest* request,
                    v1::StopReply* reply) override {
    return Answer(context, reply, [&](const Caller& caller) {
      return api_->Stop(caller, *request);
    });
  }
  grpc::Status Devices(grpc::ServerContext* context,
                       const v1::DevicesRequest* /*request*/,
                       v1::DevicesReply* reply) override {
    return Answer(context, reply,
                  [&](const Caller& caller) { return api_->Devices(caller); });
  }
  grpc::Status Check(grpc::ServerContext* context,
                     const v1::CheckRequest* /*request*/,
                     v1::CheckReply* reply) override {
    return Answer(context, reply,
                  [&](const Caller& caller) { return api_->Check(caller); });
  }
  grpc::Status Checkpoint(
      grpc::ServerContext* context, const v1::CheckpointRequest* request,
      grpc::ServerWriter<v1::CheckpointReply>* writer) override {
    return Stream(context, writer,
                  [&](const Caller& caller, const ProgressFunction& progress) {
                    return api_->Checkpoint(caller, *request, progress);
                  });
  }
  grpc::Status Restore(grpc::ServerContext* context,
                       const v1::RestoreRequest* request,
                       grpc::ServerWriter<v1::RestoreReply>* writer) override {
    return Stream(context, writer,
                  [&](const Caller& caller, const ProgressFunction& progress) {
                    return api_->Restore(caller, *request, progress);
                  });
  }
  grpc::Status ListImages(grpc::ServerContext* context,
                          const v1::ListImagesRequest* /*request*/,
                          v1::ListImagesReply* reply) override {
    return Answer(context, reply, [&](const Caller& caller) {
      return api_->ListImages(caller);
    });
  }
  grpc::Status ShowImage(grpc::ServerContext* context,
                         const v1::ShowImageRequest* request,
                         v1::ShowImageReply* reply) override {
    return Answer(context, reply, [&](const Caller& caller) {
      return api_->ShowImage(caller, request->image());
    });
  }
  grpc::Status VerifyImage(
      grpc::ServerContext* context, const v1::VerifyImageRequest* request,
      grpc::ServerWriter<v1::VerifyImageReply>* writer) override {
    return Stream(context, writer,
                  [&](const Caller& caller, const ProgressFunction& progress) {
                    return api_->VerifyImage(caller, request->image(),
                                             progress);
                  });
  }
  grpc::Status RemoveImage(grpc::ServerContext* context,
                           const v1::RemoveImageRequest* request,
                           v1::RemoveImageReply* /*reply*/) override {
    return Guard(context, [&](const Caller& caller) {
      return api_->RemoveImage(caller, request->image());
    });
  }
  grpc::Status DiffImages(grpc::ServerContext* context,
                          const v1::DiffImagesRequest* request,
                          v1::DiffImagesReply* reply) override {
    return Answer(context, reply, [&](const Caller& caller) {
      return api_->DiffImages(caller, *request);
    });
  }
  grpc::Status CollectGarbage(grpc::ServerContext* context,
                              const v1::CollectGarbageRequest* /*request*/,
                              v1::CollectGarbageReply* reply) override {
    return Answer(context, reply, [&](const Caller& caller) {
      return api_->CollectGarbage(caller, Cancelled(context));
    });
  }
  grpc::Status ExportImage(
      grpc::ServerContext* context, const v1::ExportImageRequest* request,
      grpc::ServerWriter<v1::ExportImageReply>* writer) override {
    return Stream(
        context, writer,
        [&](const Caller& caller,
            const ProgressFunction& progress) -> Result<v1::ExportResult> {
          POS_ASSIGN_OR_RETURN(StdioFds stdio,
                               TakeStdio(offers_, caller, request->ticket()));
          return api_->ExportImage(caller, *request, std::move(stdio),
                                   progress);
        });
  }
  grpc::Status ImportImage(
      grpc::ServerContext* context, const v1::ImportImageRequest* request,
      grpc::ServerWriter<v1::ImportImageReply>* writer) override {
    return Stream(
        context, writer,
        [&](const Caller& caller,
            const ProgressFunction& progress) -> Result<v1::ImportResult> {
          POS_ASSIGN_OR_RETURN(StdioFds stdio,
                               TakeStdio(offers_, caller, request->ticket()));
          return api_->ImportImage(caller, *request, std::move(stdio),
                                   progress);
        });
  }
  grpc::Status SetSeries(grpc::ServerContext* context,
                         const v1::SetSeriesRequest* request,
                         v1::SetSeriesReply* /*reply*/) override {
    return Guard(context, [&](const Caller& caller) {
      return api_->SetSeries(caller, *request);
    });
  }

 private:
  static constexpr std::uint64_t kProgressGapMs = 50;
  static constexpr std::size_t kLogPieceBytes = 256u << 10;

  // Runs `call`, which returns a Status, for whoever is calling.
  template <typename Call>
  grpc::Status Guard(grpc::ServerContext* context, const Call& call) {
    const Result<Caller> caller = CallerOf(*context);
    if (!caller.ok()) return ToGrpc(caller.status());
    if (!gate_.Enter(caller->uid)) {
      return ToGrpc(Busy("too many calls are in progress",
                         "wait until some of them have ended"));
    }
    Status status = call(*caller);
    gate_.Leave(caller->uid);
    if (status.code() == Code::kAborted && stopping_.load()) {
      status = Closed("posd is ending");
    }
    return ToGrpc(status);
  }

  // The same for a call that returns a Result of the reply.
  template <typename Reply, typename Call>
  grpc::Status Answer(grpc::ServerContext* context, Reply* reply,
                      const Call& call) {
    return Guard(context, [&](const Caller& caller) -> Status {
      POS_ASSIGN_OR_RETURN(*reply, call(caller));
      MakeUtf8(reply);
      return {};
    });
  }

  // For a call that reports progress before its result.
  template <typename Reply, typename Call>
  grpc::Status Stream(grpc::ServerContext* context,
                      grpc::ServerWriter<Reply>* writer, const Call& call) {
    return Guard(context, [&](const Caller& caller) -> Status {
      const std::function<bool()> cancelled = Cancelled(context);
      LatestSender<v1::Progress> sender(
          [writer](const v1::Progress& progress) {
            Reply reply;
            *reply.mutable_progress() = progress;
            MakeUtf8(&reply);
            static_cast<void>(writer->Write(reply));
          },
          kProgressGapMs);
      auto result = call(caller, [&](const v1::Progress& progress) {
        sender.Offer(progress);
        return !cancelled();
      });
      sender.Finish();
      if (!result.ok()) return result.status();
      Reply reply;
      *reply.mutable_result() = std::move(*result);
      MakeUtf8(&reply);
      static_cast<void>(writer->Write(reply));  // fails when nobody is there
      return {};
    });
  }

  static bool WriteLog(grpc::ServerWriter<v1::LogsReply>* writer,
                       std::string_view data) {
    while (!data.empty()) {
      const std::size_t piece = std::min(data.size(), kLogPieceBytes);
      v1::LogsReply reply;
      reply.set_data(data.data(), piece);
      if (!writer->Write(reply)) return false;
      data.remove_prefix(piece);
    }
    return true;
  }

  [[nodiscard]] std::function<bool()> Cancelled(
      grpc::ServerContext* context) const {
    return [this, context] {
      return stopping_.load(std::memory_order_relaxed) ||
             context->IsCancelled();
    };
  }

  ControlApi* const api_;
  OfferTable* const offers_;
  CallGate gate_;
  std::atomic<bool> stopping_{false};
};

}  // namespace pos

#endif  // POS_DAEMON_POS_SERVICE_H_
