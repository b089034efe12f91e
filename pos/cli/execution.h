// One command of pos-cli, from the connection to the exit status. Included by
// commands.cc and image_commands.cc alone.
//
// Threads: one runs Go; signals are handled on SignalWatch's thread.
#ifndef POS_CLI_EXECUTION_H_
#define POS_CLI_EXECUTION_H_

#include <atomic>
#include <memory>
#include <string>

#include "pos/base/status.h"
#include "pos/cli/client.h"
#include "pos/cli/console.h"
#include "pos/cli/options.h"
#include "pos/cli/progress.h"
#include "pos/cli/signal_watch.h"

namespace pos::cli {

class Execution {
 public:
  Execution(const Options& options, Console* console)
      : options_(options), console_(console) {}

  int Go();

 private:
  Status Prepare();
  Status Dispatch();

  Status Ps();
  Status Logs();
  Status Wait();
  Status Stop();
  Status Devices();
  Status Check();
  Status Checkpoint();
  Status Restore();
  Status ListImages();
  Status ShowImage();
  Status VerifyImage();
  Status RemoveImage();
  Status DiffImages();
  Status CollectGarbage();
  Status ExportImage();
  Status ImportImage();
  Status SetSeries();

  void OnSignal(int signal);
  // An object with --json, else text for people.
  void Print(const std::string& json, const std::string& text);
  // The command answers with an object that has the error in it.
  void PrintFailed(const std::string& json, const std::string& text,
                   const Status& status);
  PosClient::OnProgress Progress(const std::string& title);

  const Options& options_;
  Console* const console_;
  Cancellation cancel_;
  std::atomic<int> signal_{0};
  std::unique_ptr<SignalWatch> watch_;
  std::unique_ptr<PosClient> client_;
  std::unique_ptr<ProgressLine> progress_;
  bool writes_in_place_ = false;  // what is exported; ImageFile::in_place
  bool reported_ = false;         // an error has been printed
  int exit_status_ = 0;           // unless a Status says otherwise
};

}  // namespace pos::cli

#endif  // POS_CLI_EXECUTION_H_
