// A stage of the runner's pipeline: front end, parser or worker. Stages are
// run by threads (pos/runner/stage_thread.h), several of them on one thread
// where processors are few.
//
// Threads: Step and Idle: the thread that runs the stage.
#ifndef POS_QUEUE_STAGE_H_
#define POS_QUEUE_STAGE_H_

namespace pos {

class Stage {
 public:
  virtual ~Stage() = default;
  // Does a bounded amount of work. False when there was none.
  virtual bool Step() = 0;
  // True when there is nothing to do, so that the thread may sleep until it is
  // woken. False also when there is work that cannot proceed now (a later
  // stage's queue is full, memory is awaited): then the thread naps and asks
  // again, and nobody has to wake it. Called after the thread has announced
  // that it is going to sleep.
  virtual bool Idle() = 0;
};

}  // namespace pos

#endif  // POS_QUEUE_STAGE_H_
