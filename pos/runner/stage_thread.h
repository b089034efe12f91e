// Runs stages of the pipeline on one thread: in turn while there is work,
// looking for a short while when there is none, then asleep.
//
// Threads: Pause, Resume and Stop: one controlling thread. Wake: any.
// Blocking: Pause and Stop wait for the stage in progress to end its step,
//   which is bounded work; nothing that a client writes to the doorbell adds
//   more than kRouseMs to that.
#ifndef POS_RUNNER_STAGE_THREAD_H_
#define POS_RUNNER_STAGE_THREAD_H_

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/queue/parker.h"
#include "pos/queue/stage.h"

namespace pos {

class StageThread {
 public:
  // `parker` is where the thread sleeps; it and the stages outlive this.
  // `spin_ns`: how long it looks for work before it sleeps.
  StageThread(std::string name, std::vector<Stage*> stages, Parker* parker,
              std::uint64_t spin_ns);
  ~StageThread() { Stop(); }
  StageThread(const StageThread&) = delete;
  StageThread& operator=(const StageThread&) = delete;

  static constexpr int kRouseMs = 5;

  void Start();
  // Ends and joins. Idempotent.
  void Stop() POS_EXCLUDES(mu_);
  // On return the thread is outside every stage, and everything that it did
  // happened before. Until Resume the caller may touch the stages. The thread
  // was started.
  void Pause() POS_EXCLUDES(mu_);
  void Resume() POS_EXCLUDES(mu_);
  void Wake() { parker_->Notify(); }

 private:
  void Run();
  // False when the thread is to end.
  bool ObeyRequests() POS_EXCLUDES(mu_);
  void SleepUnlessWork();
  // Wakes the thread until it has seen the request.
  void RouseUntil(const bool* done) POS_REQUIRES(mu_);

  const std::string name_;
  const std::vector<Stage*> stages_;
  Parker* const parker_;
  const std::uint64_t spin_ns_;
  std::thread thread_;
  // Set when pause or stop is wanted; checked once a round.
  std::atomic<bool> request_{false};
  Mutex mu_;
  CondVar changed_;
  bool pause_wanted_ POS_GUARDED_BY(mu_) = false;
  bool stop_wanted_ POS_GUARDED_BY(mu_) = false;
  bool paused_ POS_GUARDED_BY(mu_) = false;
  bool ended_ POS_GUARDED_BY(mu_) = false;
};

}  // namespace pos

#endif  // POS_RUNNER_STAGE_THREAD_H_
