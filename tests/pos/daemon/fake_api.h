// A ControlApi that answers as it is told and remembers what it was asked.
#ifndef TESTS_POS_DAEMON_FAKE_API_H_
#define TESTS_POS_DAEMON_FAKE_API_H_

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/daemon/control_api.h"

namespace pos {

// Hooks are set before the service starts. A call without a hook answers
// kInternal: the test did not expect it.
class FakeApi final : public ControlApi {
 public:
  using Cancelled = std::function<bool()>;
  using Write = std::function<bool(std::string_view)>;

  std::function<Result<v1::RunReply>(const Caller&, const v1::RunRequest&,
                                     StdioFds)>
      run;
  std::function<Result<v1::WaitReply>(const Caller&, const v1::WaitRequest&,
                                      const Cancelled&)>
      wait;
  std::function<Status(const Caller&, const v1::SignalRequest&)> signal;
  std::function<Status(const Caller&, const v1::SetTerminalRequest&)>
      set_terminal;
  std::function<Result<v1::PsReply>(const Caller&, const v1::PsRequest&)> ps;
  std::function<Status(const Caller&, const v1::LogsRequest&, const Write&,
                       const Cancelled&)>
      logs;
  std::function<Result<v1::StopReply>(const Caller&, const v1::StopRequest&)>
      stop;
  std::function<Result<v1::DevicesReply>(const Caller&)> devices;
  std::function<Result<v1::CheckReply>(const Caller&)> check;
  std::function<Result<v1::CheckpointResult>(
      const Caller&, const v1::CheckpointRequest&, const ProgressFunction&)>
      checkpoint;
  std::function<Result<v1::RestoreResult>(
      const Caller&, const v1::RestoreRequest&, const ProgressFunction&)>
      restore;
  std::function<Result<v1::ListImagesReply>(const Caller&)> list_images;
  std::function<Result<v1::ShowImageReply>(const Caller&, const std::string&)>
      show_image;
  std::function<Result<v1::VerifyResult>(const Caller&, const std::string&,
                                         const ProgressFunction&)>
      verify_image;
  std::function<Status(const Caller&, const std::string&)> remove_image;
  std::function<Result<v1::DiffImagesReply>(const Caller&)> diff_images;
  std::function<Result<v1::CollectGarbageReply>(const Caller&,
                                                const Cancelled&)>
      collect_garbage;
  std::function<Result<v1::ExportResult>(const Caller&, StdioFds,
                                         const ProgressFunction&)>
      export_image;
  std::function<Result<v1::ImportResult>(const Caller&, StdioFds,
                                         const ProgressFunction&)>
      import_image;
  std::function<Status(const Caller&)> set_series;

  // "Ps", "Wait train", …, in the order in which they came.
  std::vector<std::string> calls() const POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    return calls_;
  }

  Result<v1::RunReply> Run(const Caller& caller, const v1::RunRequest& request,
                           StdioFds stdio) override {
    Note("Run " + request.name());
    if (!run) return Unexpected();
    return run(caller, request, std::move(stdio));
  }
  Result<v1::WaitReply> Wait(const Caller& caller,
                             const v1::WaitRequest& request,
                             const Cancelled& cancelled) override {
    Note("Wait " + request.job());
    if (!wait) return Unexpected();
    return wait(caller, request, cancelled);
  }
  Status Signal(const Caller& caller,
                const v1::SignalRequest& request) override {
    Note("Signal " + request.job() + " " + std::to_string(request.signal()) +
         (request.everyone() ? " everyone" : ""));
    return signal ? signal(caller, request) : Unexpected();
  }
  Status SetTerminal(const Caller& caller,
                     const v1::SetTerminalRequest& request) override {
    std::string what = "SetTerminal " + request.job();
    if (request.has_window()) {
      what += " " + std::to_string(request.window().rows()) + "x" +
              std::to_string(request.window().columns());
    }
    if (request.set_stdin()) what += request.read_stdin() ? " on" : " off";
    Note(what);
    return set_terminal ? set_terminal(caller, request) : Unexpected();
  }
  Result<v1::PsReply> Ps(const Caller& caller,
                         const v1::PsRequest& request) override {
    Note(request.all() ? "Ps all" : "Ps");
    if (!ps) return Unexpected();
    return ps(caller, request);
  }
  Status Logs(const Caller& caller, const v1::LogsRequest& request,
              const Write& write, const Cancelled& cancelled) override {
    Note("Logs " + request.job() + (request.follow() ? " follow" : ""));
    return logs ? logs(caller, request, write, cancelled) : Unexpected();
  }
  Result<v1::StopReply> Stop(const Caller& caller,
                             const v1::StopRequest& request) override {
    Note("Stop " + request.job() + (request.now() ? " now" : ""));
    if (!stop) return Unexpected();
    return stop(caller, request);
  }
  Result<v1::DevicesReply> Devices(const Caller& caller) override {
    Note("Devices");
    if (!devices) return Unexpected();
    return devices(caller);
  }
  Result<v1::CheckReply> Check(const Caller& caller) override {
    Note("Check");
    if (!check) return Unexpected();
    return check(caller);
  }
  Result<v1::CheckpointResult> Checkpoint(
      const Caller& caller, const v1::CheckpointRequest& request,
      const ProgressFunction& progress) override {
    Note("Checkpoint " + request.job() + " " + request.mode() + " " +
         request.tag() + (request.stop() ? " stop" : ""));
    if (!checkpoint) return Unexpected();
    return checkpoint(caller, request, progress);
  }
  Result<v1::RestoreResult> Restore(const Caller& caller,
                                    const v1::RestoreRequest& request,
                                    const ProgressFunction& progress) override {
    Note("Restore " + request.image() + " name=" + request.name() +
         " device=" + request.device() +
         " files=" + v1::RestoreRequest::Files_Name(request.files()) + " " +
         request.copy_directory());
    if (!restore) return Unexpected();
    return restore(caller, request, progress);
  }
  Result<v1::ListImagesReply> ListImages(const Caller& caller) override {
    Note("ListImages");
    if (!list_images) return Unexpected();
    return list_images(caller);
  }
  Result<v1::ShowImageReply> ShowImage(const Caller& caller,
                                       const std::string& image) override {
    Note("ShowImage " + image);
    if (!show_image) return Unexpected();
    return show_image(caller, image);
  }
  Result<v1::VerifyResult> VerifyImage(
      const Caller& caller, const std::string& image,
      const ProgressFunction& progress) override {
    Note("VerifyImage " + image);
    if (!verify_image) return Unexpected();
    return verify_image(caller, image, progress);
  }
  Status RemoveImage(const Caller& caller, const std::string& image) override {
    Note("RemoveImage " + image);
    return remove_image ? remove_image(caller, image) : Unexpected();
  }
  Result<v1::DiffImagesReply> DiffImages(
      const Caller& caller, const v1::DiffImagesRequest& request) override {
    Note("DiffImages " + request.image_a() + " " + request.image_b());
    if (!diff_images) return Unexpected();
    return diff_images(caller);
  }
  Result<v1::CollectGarbageReply> CollectGarbage(
      const Caller& caller, const Cancelled& cancelled) override {
    Note("CollectGarbage");
    if (!collect_garbage) return Unexpected();
    return collect_garbage(caller, cancelled);
  }
  Result<v1::ExportResult> ExportImage(
      const Caller& caller, const v1::ExportImageRequest& request,
      StdioFds stdio, const ProgressFunction& progress) override {
    Note("ExportImage " + request.image());
    if (!export_image) return Unexpected();
    return export_image(caller, std::move(stdio), progress);
  }
  Result<v1::ImportResult> ImportImage(
      const Caller& caller, const v1::ImportImageRequest& request,
      StdioFds stdio, const ProgressFunction& progress) override {
    Note("ImportImage " + std::to_string(request.total_bytes()));
    if (!import_image) return Unexpected();
    return import_image(caller, std::move(stdio), progress);
  }
  Status SetSeries(const Caller& caller,
                   const v1::SetSeriesRequest& request) override {
    Note("SetSeries " + request.job() + " " +
         std::to_string(request.every_ms()) + " " +
         std::to_string(request.keep()) + " " + request.mode());
    return set_series ? set_series(caller) : Unexpected();
  }

 private:
  static Status Unexpected() { return Internal("not expected by the test"); }
  void Note(std::string call) POS_EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    calls_.push_back(std::move(call));
  }

  mutable Mutex mu_;
  std::vector<std::string> calls_ POS_GUARDED_BY(mu_);
};

}  // namespace pos

#endif  // TESTS_POS_DAEMON_FAKE_API_H_
