// posd's side of a connection with one pos-job.
//
// Threads:   Call and the other requests from any thread; they block until the
//            answer or the time-out. Events and the end of the connection are
//            handled on a thread of the client's own: handlers must not call
//            back into Call (deadlock), and are not called any more once the
//            destructor has returned.
// Ownership: descriptors passed in stay the caller's; those that come back are
//            the caller's.
// Errors:    kClosed when the connection is gone, kTimeout when no answer came;
//            else what pos-job answered.
#ifndef POS_JOB_CLIENT_H_
#define POS_JOB_CLIENT_H_

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/job/job.pb.h"
#include "remoting/control/channel.h"

namespace pos::job {

class JobClient {
 public:
  struct Handlers {
    std::function<void(const Event&)> event;
    // A reply that nobody waits for (its Call timed out, or it belongs to an
    // earlier posd's Dump).
    std::function<void(const Reply&)> stray_reply;
    std::function<void()> closed;
  };

  // Starts `program` (pos-job) with this configuration. `fds`: what the
  // configuration's indices refer to. Returns once pos-job has said Hello; how
  // the start went comes as an event. The process is a child of this one; it is
  // reaped when it ends soon after its connection, else by the destructor if it
  // has ended by then.
  static Result<std::unique_ptr<JobClient>> Spawn(const std::string& program,
                                                  const JobConfig& config,
                                                  std::span<const int> fds,
                                                  Handlers handlers);
  // To a pos-job that runs already, by its directory. kNoSuch or kClosed when
  // there is none: then exit.json says how the job ended.
  static Result<std::unique_ptr<JobClient>> Connect(
      const std::string& directory, Handlers handlers);
  ~JobClient();
  JobClient(const JobClient&) = delete;
  JobClient& operator=(const JobClient&) = delete;

  // What pos-job said first.
  [[nodiscard]] const Hello& hello() const { return hello_; }

  // Sends a request (its id is filled in) and waits for the answer. `opened`
  // receives the descriptor of an OpenInside. kTimeout, too, soon after
  // `given_up` has become true.
  Result<Reply> Call(ToJob request, std::span<const int> fds, int timeout_ms,
                     UniqueFd* opened = nullptr,
                     const std::atomic<bool>* given_up = nullptr)
      POS_EXCLUDES(mu_);
  // Sends a request whose reply goes to handlers.stray_reply. Returns its id.
  Result<std::uint64_t> Post(ToJob request, std::span<const int> fds)
      POS_EXCLUDES(mu_);
  Status AckExit();

 private:
  struct Waiter {
    bool done = false;
    Status status;
    Reply reply;
    UniqueFd fd;
  };

  JobClient(UniqueFd socket, pid_t child, Handlers handlers);

  Status Handshake();
  void Read();
  void HandleReply(const Reply& reply, UniqueFd fd) POS_EXCLUDES(mu_);
  void FailWaiters() POS_EXCLUDES(mu_);
  void Reap(int timeout_ms);

  ControlChannel channel_;
  pid_t child_;  // 0: none, or reaped
  const Handlers handlers_;
  Hello hello_;
  Mutex mu_;
  CondVar answered_;
  std::map<std::uint64_t, Waiter*> waiters_ POS_GUARDED_BY(mu_);
  std::uint64_t next_id_ POS_GUARDED_BY(mu_) = 0;
  bool closed_ POS_GUARDED_BY(mu_) = false;
  std::atomic<bool> ending_{false};
  std::thread reader_;
};

}  // namespace pos::job

#endif  // POS_JOB_CLIENT_H_
