// The node's devices: what there is, how much of its memory is promised to
// whom.
//
// The inventory is an immutable snapshot, replaced whole. A grant is made from
// one snapshot and counted under a lock, so memory is never promised twice.
//
// Threads: any.
#ifndef POS_DAEMON_DEVICE_TABLE_H_
#define POS_DAEMON_DEVICE_TABLE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/base/status.h"

namespace pos {

struct NodeDevice {
  int ordinal = 0;
  std::string kind;  // "sim", "cuda"
  std::string name;
  std::uint64_t memory_bytes = 0;
  std::string state = "ready";  // or "failed"
  std::string why;              // it failed
  // How a runner opens it.
  std::uint64_t copy_bytes_per_second = 0;
  std::uint32_t compute_threads = 0;
  std::uint32_t compute_capability = 0;
  std::uint32_t multiprocessors = 0;
  std::string driver_library;  // cuda
  int driver_ordinal = 0;      // cuda
};

struct DeviceSnapshot {
  std::uint64_t generation = 0;
  std::vector<NodeDevice> devices;
};

class DeviceTable {
 public:
  // Memory that a session of each device holds from its start.
  void Publish(std::vector<NodeDevice> devices) POS_EXCLUDES(mu_);
  [[nodiscard]] std::shared_ptr<const DeviceSnapshot> snapshot() const
      POS_EXCLUDES(mu_);

  // A device that works again, or does not: `why` is empty or says so.
  void SetWorks(int ordinal, const std::string& why) POS_EXCLUDES(mu_);

  // Ordinals for a job. `wanted` is "" (the ready device with the most free
  // memory) or a list "0,1". kNoSuch and kBusy (draining) name the device.
  Result<std::vector<int>> Choose(const std::string& wanted) const
      POS_EXCLUDES(mu_);

  // Grants at least `wanted` bytes, up to `at_most`, to `holder`; 0 when there
  // are not `wanted` bytes.
  std::uint64_t Grant(const std::string& holder, int ordinal,
                      std::uint64_t wanted, std::uint64_t at_most)
      POS_EXCLUDES(mu_);
  void GiveBack(const std::string& holder, int ordinal, std::uint64_t bytes)
      POS_EXCLUDES(mu_);
  // Everything that `holder` has.
  void Release(const std::string& holder) POS_EXCLUDES(mu_);
  // After a restart: what a runner says that it holds, besides what it has been
  // granted since.
  void AddGranted(const std::string& holder, int ordinal, std::uint64_t bytes)
      POS_EXCLUDES(mu_);

  [[nodiscard]] std::uint64_t FreeBytes(int ordinal) const POS_EXCLUDES(mu_);
  [[nodiscard]] std::uint32_t Sessions(int ordinal) const POS_EXCLUDES(mu_);

 private:
  [[nodiscard]] const NodeDevice* Find(int ordinal) const POS_REQUIRES(mu_);
  [[nodiscard]] std::uint64_t FreeLocked(int ordinal) const POS_REQUIRES(mu_);

  mutable Mutex mu_;
  std::shared_ptr<const DeviceSnapshot> snapshot_ POS_GUARDED_BY(mu_) =
      std::make_shared<DeviceSnapshot>();
  // holder → ordinal → bytes.
  std::map<std::string, std::map<int, std::uint64_t>> grants_
      POS_GUARDED_BY(mu_);
};

// "0,2" → {0, 2}; kInvalid for anything else, a repetition included.
Result<std::vector<int>> ParseOrdinals(const std::string& text);
// "0:1,1:0" → {0→1, 1→0}.
Result<std::map<int, int>> ParseDeviceMap(const std::string& text);

}  // namespace pos

#endif  // POS_DAEMON_DEVICE_TABLE_H_
