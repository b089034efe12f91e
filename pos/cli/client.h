// pos-cli's connection to posd, without gRPC in sight.
//
// Threads:   any; one client may have several calls in progress.
// Blocking:  as the call takes. Calls that posd answers at once have a deadline
//            of kShortCallMs; the others end with posd's answer, with
//            cancellation, or with posd.
// Errors:    what posd answered; kClosed when the connection broke (posd
// ended),
//            kTimeout when a short call got no answer, kAborted when cancelled.
#ifndef POS_CLI_CLIENT_H_
#define POS_CLI_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/daemon/pos.pb.h"
#include "pos/daemon/stdio_offer.h"

namespace pos::cli {

inline constexpr int kConnectMs = 5'000;
inline constexpr int kShortCallMs = 30'000;

// Ends a call from outside. One per call.
class Cancellation {
 public:
  Cancellation() = default;
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  // Any thread, any time. The call returns kAborted unless it had ended.
  void Cancel() POS_EXCLUDES(mu_);
  [[nodiscard]] bool cancelled() const POS_EXCLUDES(mu_);

  // The call's: `cancel` ends it, and is called at once when it is too late.
  void Attach(std::function<void()> cancel) POS_EXCLUDES(mu_);
  void Detach() POS_EXCLUDES(mu_);

 private:
  mutable Mutex mu_;
  bool cancelled_ POS_GUARDED_BY(mu_) = false;
  std::function<void()> cancel_ POS_GUARDED_BY(mu_);
};

class PosClient {
 public:
  using OnProgress = std::function<void(const v1::Progress&)>;

  // Within kConnectMs. The error says that there is no posd at `path`, or what
  // else is wrong with it.
  static Result<std::unique_ptr<PosClient>> Connect(const std::string& path);
  ~PosClient();
  PosClient(const PosClient&) = delete;
  PosClient& operator=(const PosClient&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& posd_version() const { return version_; }

  // On the same socket; see stdio_offer.h.
  Result<UniqueFd> Offer(const Ticket& ticket, const std::array<int, 3>& fds);

  Result<v1::RunReply> Run(const v1::RunRequest& request, Cancellation* cancel);
  Result<v1::WaitReply> Wait(const v1::WaitRequest& request,
                             Cancellation* cancel);
  Status Signal(const v1::SignalRequest& request);
  Status SetTerminal(const v1::SetTerminalRequest& request);
  Result<v1::PsReply> Ps(const v1::PsRequest& request);
  // `data` returns false to end.
  Status Logs(const v1::LogsRequest& request,
              const std::function<bool(std::string_view)>& data,
              Cancellation* cancel);
  Result<v1::StopReply> Stop(const v1::StopRequest& request,
                             Cancellation* cancel);
  Result<v1::DevicesReply> Devices();
  Result<v1::CheckReply> Check(Cancellation* cancel);
  Result<v1::CheckpointResult> Checkpoint(const v1::CheckpointRequest& request,
                                          const OnProgress& progress,
                                          Cancellation* cancel);
  Result<v1::RestoreResult> Restore(const v1::RestoreRequest& request,
                                    const OnProgress& progress,
                                    Cancellation* cancel);
  Result<v1::ListImagesReply> ListImages();
  Result<v1::ShowImageReply> ShowImage(const v1::ShowImageRequest& request);
  Result<v1::VerifyResult> VerifyImage(const v1::VerifyImageRequest& request,
                                       const OnProgress& progress,
                                       Cancellation* cancel);
  Status RemoveImage(const v1::RemoveImageRequest& request,
                     Cancellation* cancel);
  Result<v1::DiffImagesReply> DiffImages(const v1::DiffImagesRequest& request,
                                         Cancellation* cancel);
  Result<v1::CollectGarbageReply> CollectGarbage(Cancellation* cancel);
  // The pipe has been offered (Offer).
  Result<v1::ExportResult> ExportImage(const v1::ExportImageRequest& request,
                                       const OnProgress& progress,
                                       Cancellation* cancel);
  Result<v1::ImportResult> ImportImage(const v1::ImportImageRequest& request,
                                       const OnProgress& progress,
                                       Cancellation* cancel);
  Status SetSeries(const v1::SetSeriesRequest& request);

 private:
  struct Impl;
  explicit PosClient(std::string path);

  const std::string path_;
  std::string version_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pos::cli

#endif  // POS_CLI_CLIENT_H_
