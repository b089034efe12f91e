// The runner's share of the node's memory ledger: asks posd for device memory
// in large pieces, hands it out, gives back what it no longer needs.
//
// Threads: any. SetGranted, OnAnswer, SetSend: the thread that reads the
//   control channel.
// Blocking: nothing blocks. A request that posd does not answer within
//   kAnswerMs counts as denied.
#ifndef POS_RUNNER_RUNNER_LEDGER_H_
#define POS_RUNNER_RUNNER_LEDGER_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/mutex.h"
#include "pos/graph/ledger.h"

namespace pos {

class RunnerLedger : public MemoryLedger {
 public:
  static constexpr std::uint64_t kAnswerMs = 5000;
  // Asked for and kept in pieces of this size, so that small allocations do not
  // each cost a round trip to posd.
  static constexpr std::uint64_t kPiece = 64u << 20;

  explicit RunnerLedger(std::size_t devices) : devices_(devices) {}

  // How requests and returns reach posd: device, bytes; false when posd cannot
  // be reached now. A request for 0 bytes asks how much there is.
  using Send = std::function<bool(int device, std::uint64_t bytes)>;
  void SetSend(Send want, Send give_back) POS_EXCLUDES(mu_);
  // Called after an answer came, to wake who was told kPending.
  void SetWake(std::function<void()> wake) POS_EXCLUDES(mu_);

  // What a device could still give once `promised` bytes of it are used. For
  // memory that others may take, too: what posd has granted is then looked for
  // on the device before it is promised. Called by Take and FreeBytes.
  using Headroom =
      std::function<std::uint64_t(int device, std::uint64_t promised)>;
  void SetHeadroom(Headroom headroom) POS_EXCLUDES(mu_);

  // What posd has granted without being asked, and what of it a restored
  // session holds already.
  void SetGranted(int device, std::uint64_t bytes, std::uint64_t used)
      POS_EXCLUDES(mu_);
  // posd's answer: so much more; 0 denies.
  void OnAnswer(int device, std::uint64_t granted, std::uint64_t device_free)
      POS_EXCLUDES(mu_);
  // posd's answer to a request for 0 bytes.
  void OnFree(int device, std::uint64_t device_free) POS_EXCLUDES(mu_);

  Answer Take(int device, std::uint64_t bytes) override POS_EXCLUDES(mu_);
  void GiveBack(int device, std::uint64_t bytes) override POS_EXCLUDES(mu_);
  Answer Refresh(int device) override POS_EXCLUDES(mu_);
  void SetReclaim(std::function<bool(int device)> reclaim) override
      POS_EXCLUDES(mu_);
  [[nodiscard]] std::uint64_t FreeBytes(int device) const override
      POS_EXCLUDES(mu_);
  [[nodiscard]] std::uint64_t Granted(int device) const POS_EXCLUDES(mu_);
  [[nodiscard]] std::uint64_t Used(int device) const POS_EXCLUDES(mu_);

 private:
  struct PerDevice {
    std::uint64_t granted = 0;
    std::uint64_t used = 0;
    std::uint64_t device_free = 0;  // as posd said last
    bool asked = false;
    bool denied = false;      // the latest answer; consumed by the next Take
    bool reclaiming = false;  // denied, but memory will come back
    std::uint64_t asked_at_ns = 0;
    bool refreshing = false;
    bool fresh = false;  // consumed by the next Refresh
    std::uint64_t refreshing_since_ns = 0;
  };

  mutable Mutex mu_;
  std::vector<PerDevice> devices_ POS_GUARDED_BY(mu_);
  Send want_ POS_GUARDED_BY(mu_);
  Send give_back_ POS_GUARDED_BY(mu_);
  std::function<void()> wake_ POS_GUARDED_BY(mu_);
  std::function<bool(int)> reclaim_ POS_GUARDED_BY(mu_);
  Headroom headroom_ POS_GUARDED_BY(mu_);
};

}  // namespace pos

#endif  // POS_RUNNER_RUNNER_LEDGER_H_
