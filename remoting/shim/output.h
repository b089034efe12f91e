// Text that kernels printed, on its way from the runner to the program's
// standard output and error.
//
// It is written through stdio's `stdout` and `stderr`, so that it lies between
// what the program itself prints there before and after. When: as CUDA says,
// before a function returns that synchronizes (context, stream, event), that
// copies and waits, that loads or unloads code or ends a context, and at a
// launch.
//
// Threads:  any; one at a time fetches and writes, the others wait for it, so
//   whoever returns from a synchronizing call finds the text of its kernels
//   written, whoever wrote it.
// Blocking: as the program's own writes to these streams do.
// Checkpoints: text is at the runner, in an answer, or in stdio's buffer, and
//   each of these is saved once; so it is written once.
#ifndef REMOTING_SHIM_OUTPUT_H_
#define REMOTING_SHIM_OUTPUT_H_

namespace pos::shim {

// Writes what the calling thread has learnt to be waiting, and waits for what
// another thread is writing. Nothing to do costs a few instructions. The thread
// holds no lease and no lock.
void FlushOutput();

// At the head of an API function: flushes when it returns, whatever it returns.
class OutputFlush {
 public:
  explicit OutputFlush(bool wanted = true) : wanted_(wanted) {}
  ~OutputFlush() {
    if (wanted_) FlushOutput();
  }
  OutputFlush(const OutputFlush&) = delete;
  OutputFlush& operator=(const OutputFlush&) = delete;

 private:
  const bool wanted_;
};

}  // namespace pos::shim

#endif  // REMOTING_SHIM_OUTPUT_H_
