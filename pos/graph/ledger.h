// Counts a session's device memory against what it may use.
//
// The node's ledger is posd's; a runner asks it for memory in large pieces and
// hands them out here. An allocation is answered at once only from memory that
// was granted, so that a program learns "out of memory" at the call.
//
// Threads: any.
#ifndef POS_GRAPH_LEDGER_H_
#define POS_GRAPH_LEDGER_H_

#include <cstdint>

namespace pos {

class MemoryLedger {
 public:
  enum class Answer {
    kGranted,
    kDenied,   // there is no more
    kPending,  // asked for; ask again (bounded: it becomes one of the others)
  };
  virtual ~MemoryLedger() = default;
  // Takes `bytes` of device `device` (the session's numbering).
  virtual Answer Take(int device, std::uint64_t bytes) = 0;
  virtual void GiveBack(int device, std::uint64_t bytes) = 0;
  // Finds out what could still be taken: kPending until that is known
  // (bounded); what FreeBytes says then is new.
  virtual Answer Ask([[maybe_unused]] int device) { return Answer::kGranted; }
  // What could still be taken, as far as known here.
  [[nodiscard]] virtual std::uint64_t FreeBytes(int device) const = 0;
};

}  // namespace pos

#endif  // POS_GRAPH_LEDGER_H_
