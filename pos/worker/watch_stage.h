// Gives a session's watch its turns on the worker's thread, so that what it
// submits to a device comes from the thread that everything else comes from.
//
// Threads: Step, Idle: the worker's. Set: while that thread is paused.
#ifndef POS_WORKER_WATCH_STAGE_H_
#define POS_WORKER_WATCH_STAGE_H_

#include "pos/queue/stage.h"
#include "pos/worker/memory_watch.h"

namespace pos {

class WatchStage : public Stage {
 public:
  void Set(MemoryWatch* watch) { watch_ = watch; }
  bool Step() override { return watch_ != nullptr && watch_->Step(); }
  bool Idle() override { return true; }

 private:
  MemoryWatch* watch_ = nullptr;
};

}  // namespace pos

#endif  // POS_WORKER_WATCH_STAGE_H_
