// pos-runner's main loop: posd's requests on one side, the client's session
// records on the other, the session between.
//
// Threads: one runs Run. A save has a thread of its own; the session's pipeline
//   and a lazy load have their own, too.
// Life: ends when the client is gone, when posd says so, when posd is gone
// while
//   the runner is warm, and when an image's session has waited kOrphanMs for
//   its client without a posd. It does not end because posd does.
#ifndef POS_RUNNER_CONTROLLER_H_
#define POS_RUNNER_CONTROLLER_H_

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ckpt/engine/lazy_load.h"
#include "ckpt/engine/session_save.h"
#include "pos/base/clock.h"
#include "pos/device/device.h"
#include "pos/runner/client_link.h"
#include "pos/runner/runner.pb.h"
#include "pos/runner/runner_ledger.h"
#include "pos/runner/session.h"
#include "pos/runner/tmpfs_window.h"
#include "remoting/control/channel.h"

namespace pos {

class Controller {
 public:
  // `channel`: connection to the posd that started this process.
  explicit Controller(UniqueFd channel);
  ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  // Returns the process's exit status.
  int Run();

 private:
  using Message = ControlChannel::Message;
  static constexpr std::uint64_t kOrphanMs = 120'000;
  // Requests of posd that wait for another one to be done; it sends few.
  static constexpr std::size_t kMostKept = 64;
  // Whose posd this runner is. Taken before it becomes its client's user.
  const uid_t posd_uid_ = ::getuid();

  // One round: waits for something and handles it.
  void Round();
  void OnPosd();
  void OnPosdMessage(Message message);
  // While a request is being handled that waits for the client: takes what posd
  // sends. Answers about memory, for which calls wait that the client sends
  // meanwhile, are handled; the rest is kept for Round. False when nothing more
  // is to be taken now.
  bool TakeFromPosd();
  [[nodiscard]] ClientLink::Also AlsoPosd();
  void OnListener();
  void OnClient();
  void OnClientEvent(ClientLink::Event event);
  void OnClientEnded(const char* how);
  void OnSaveDone();
  void OnLazyEnded();
  void LosePosd();

  void Handle(const runner::ToRunner& request, std::vector<UniqueFd> fds);
  Status HandleConfigure(const runner::Configure& request,
                         runner::FromRunner* reply);
  // Of a runner without a session: whether its devices still work.
  [[nodiscard]] Status CheckDevices() const;
  // `reply` names the device that fails.
  Status OpenDevices(const runner::Configure& request,
                     runner::FromRunner* reply);
  Status OpenDevice(const runner::DeviceSpec& spec, int place);
  Status OpenAt(const runner::Configure& request, runner::FromRunner* reply);
  void PinStaging();
  void UnpinStaging();
  Status HandleAttach(const runner::Attach& request, std::vector<UniqueFd> fds);
  Status HandleLoad(const runner::Load& request, std::vector<UniqueFd> fds,
                    runner::FromRunner* reply);
  Status LoadLazily(const runner::Load& request, ckpt::SessionLoadFiles files,
                    runner::FromRunner* reply);
  // Has the session's device come to rest and stay so. `*held_ns`: since when
  // nothing was handed to it. On an error everything runs on.
  Status BringToRest(const runner::Quiesce& request, std::uint64_t* held_ns);
  // kTimeout when no call came back for `silence_ms`, or after `longest_ms`.
  Status AwaitRest(std::uint64_t silence_ms, std::uint64_t longest_ms);
  Status CloseGate();
  Status HandleQuiesce(const runner::Quiesce& request,
                       runner::FromRunner* reply);
  Status HandleDetach(const runner::Detach& request);
  Status HandleSave(std::uint64_t id, const runner::Save& request,
                    std::vector<UniqueFd> fds);
  [[nodiscard]] bool AtRest() const {
    return phase_ == runner::State::QUIESCED ||
           phase_ == runner::State::DETACHED;
  }
  void SendSaved();
  // A later step of the save that HandleSave began.
  Status HandleSaveStep(const runner::ToRunner& request);
  // Runs one step of a save on its thread; the reply goes out when it is done.
  Status StartSaveStep(std::uint64_t id, std::function<Status()> step);
  Status HandleResume(const runner::Resume& request);
  void OnMemoryAnswer(const runner::MemoryAnswer& answer);
  // The client has answered a detach that was given up.
  void OnLateAnswer();
  void FillState(runner::State* state) const;

  Status MakeSession(std::uint64_t number, const std::string& job,
                     UniqueFd host_file);
  Status DropPrivileges(std::uint32_t uid, std::uint32_t gid);
  void Send(const runner::FromRunner& message);
  void SendReply(std::uint64_t id, const Status& status,
                 runner::FromRunner* reply);
  void SendEvent(runner::Event::What what, const std::string& text);
  void Wake();
  void EndSave();

  // Constant after Configure.
  std::string name_;
  std::string socket_path_;
  SessionOptions options_;
  std::unique_ptr<ReservedRange> arena_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<Device*> pinned_;  // that have staging pinned
  std::unique_ptr<RunnerLedger> ledger_;

  std::unique_ptr<ControlChannel> posd_;  // null while there is none
  std::deque<Message> kept_;              // of its; see TakeFromPosd
  Mutex posd_mu_;  // for sends from pipeline threads against LosePosd
  UniqueFd listener_;
  // eventfd: a save step is done, loading has ended, the client misbehaved
  UniqueFd wake_;

  runner::State::Phase phase_ = runner::State::WARM;
  std::uint64_t session_number_ = 0;
  std::string job_;
  std::int32_t client_pid_ = 0;
  UniqueFd client_pidfd_;
  std::uint32_t epoch_ = 0;
  // A detach was given up and the client has not come back from it yet.
  bool detach_late_ = false;
  bool resume_late_ = false;  // and posd wants the session to run on
  std::unique_ptr<TmpfsWindow> window_;
  // While device memory of the session is being loaded: its watch.
  std::unique_ptr<ckpt::LazyLoad> lazy_;
  std::atomic<bool> lazy_ended_{false};
  std::unique_ptr<Session> session_;
  ClientLink link_;
  bool started_ = false;  // the session's pipeline was started

  std::unique_ptr<ckpt::SessionSave> save_;
  std::thread save_thread_;
  std::thread burial_;  // destroys the writer of a save that has ended
  std::atomic<bool> save_cancel_{false};
  std::atomic<bool> save_step_done_{false};
  std::uint64_t save_request_ = 0;  // 0: no step is running
  Status save_status_;              // of the step; after save_step_done_
  std::atomic<bool> malformed_{false};

  std::uint64_t posd_lost_ns_ = 0;
  bool ending_ = false;
  int exit_status_ = 0;
};

}  // namespace pos

#endif  // POS_RUNNER_CONTROLLER_H_
