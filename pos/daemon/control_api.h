// What posd can be asked to do, without gRPC: the service translates calls to
// this interface, and the supervisor implements it.
//
// Threads:  any number at once. `Caller` says on whose behalf.
// Blocking: as the operation takes; `progress` is called on the same thread and
//           returns false to cancel.
// Errors:   Status with the codes of pos/base/status.h; kNoSuch also for what
//           belongs to somebody else.
#ifndef POS_DAEMON_CONTROL_API_H_
#define POS_DAEMON_CONTROL_API_H_

#include <functional>
#include <string>
#include <string_view>

#include "pos/base/status.h"
#include "pos/daemon/caller.h"
#include "pos/daemon/pos.pb.h"

namespace pos {

using ProgressFunction = std::function<bool(const v1::Progress&)>;

class ControlApi {
 public:
  virtual ~ControlApi() = default;

  virtual Result<v1::RunReply> Run(const Caller& caller,
                                   const v1::RunRequest& request,
                                   StdioFds stdio) = 0;
  // Until the job has ended or `cancelled` returns true (kAborted).
  virtual Result<v1::WaitReply> Wait(
      const Caller& caller, const v1::WaitRequest& request,
      const std::function<bool()>& cancelled) = 0;
  virtual Status Signal(const Caller& caller,
                        const v1::SignalRequest& request) = 0;
  virtual Status SetTerminal(const Caller& caller,
                             const v1::SetTerminalRequest& request) = 0;
  virtual Result<v1::PsReply> Ps(const Caller& caller,
                                 const v1::PsRequest& request) = 0;
  // `write` gets the log piece by piece; false ends.
  virtual Status Logs(const Caller& caller, const v1::LogsRequest& request,
                      const std::function<bool(std::string_view)>& write,
                      const std::function<bool()>& cancelled) = 0;
  virtual Result<v1::StopReply> Stop(const Caller& caller,
                                     const v1::StopRequest& request) = 0;
  virtual Result<v1::DevicesReply> Devices(const Caller& caller) = 0;
  virtual Result<v1::CheckReply> Check(const Caller& caller) = 0;
  virtual Result<v1::CheckpointResult> Checkpoint(
      const Caller& caller, const v1::CheckpointRequest& request,
      const ProgressFunction& progress) = 0;
  virtual Result<v1::RestoreResult> Restore(
      const Caller& caller, const v1::RestoreRequest& request,
      const ProgressFunction& progress) = 0;
  virtual Result<v1::ListImagesReply> ListImages(const Caller& caller) = 0;
  virtual Result<v1::ShowImageReply> ShowImage(const Caller& caller,
                                               const std::string& image) = 0;
  virtual Result<v1::VerifyResult> VerifyImage(
      const Caller& caller, const std::string& image,
      const ProgressFunction& progress) = 0;
  virtual Status RemoveImage(const Caller& caller,
                             const std::string& image) = 0;
  virtual Result<v1::DiffImagesReply> DiffImages(
      const Caller& caller, const v1::DiffImagesRequest& request) = 0;
  // Until it is done or `cancelled` returns true (kAborted).
  virtual Result<v1::CollectGarbageReply> CollectGarbage(
      const Caller& caller, const std::function<bool()>& cancelled) = 0;
  // Through stdio.out, resp. stdio.in, which have to be pipes.
  virtual Result<v1::ExportResult> ExportImage(
      const Caller& caller, const v1::ExportImageRequest& request,
      StdioFds stdio, const ProgressFunction& progress) = 0;
  virtual Result<v1::ImportResult> ImportImage(
      const Caller& caller, const v1::ImportImageRequest& request,
      StdioFds stdio, const ProgressFunction& progress) = 0;
  virtual Status SetSeries(const Caller& caller,
                           const v1::SetSeriesRequest& request) = 0;
};

}  // namespace pos

#endif  // POS_DAEMON_CONTROL_API_H_
