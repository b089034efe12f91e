// A device whose work is done when the test says so, and which counts what a
// caller of pos/device/device.h may get wrong: things destroyed after what they
// were made from, memory unmapped while work is under way.
//
// Threads: the worker submits; the test releases. No thread of its own.
#ifndef POS_TESTS_SUPPORT_MANUAL_DEVICE_H_
#define POS_TESTS_SUPPORT_MANUAL_DEVICE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/device/device.h"

namespace pos {

class ManualDevice : public Device {
 public:
  explicit ManualDevice(std::uint64_t memory_bytes);
  ~ManualDevice() override;

  // Work that is submitted from now on waits for Release (on), or is done at
  // once (off, as at the start).
  void SetManual(bool on) POS_EXCLUDES(mu_);
  // Completes what waits, oldest first; of one context (in order of creation,
  // from 0) or, with -1, of all. Returns how much that was.
  std::size_t Release(int context = -1, DeviceError error = 0)
      POS_EXCLUDES(mu_);
  [[nodiscard]] std::size_t Waiting() POS_EXCLUDES(mu_);
  // What was done against the contract; empty when nothing was.
  [[nodiscard]] std::vector<std::string> Violations() POS_EXCLUDES(mu_);
  // The next CreateContext, CreateStream, CreateEvent, LoadModule; Map; MapHost
  // fails.
  void FailNextCreate() POS_EXCLUDES(mu_);
  void FailNextMap() POS_EXCLUDES(mu_);
  void FailNextMapHost() POS_EXCLUDES(mu_);
  // Poisons every context, as a fault of a kernel does, with what waits.
  void Fault(DeviceError error) POS_EXCLUDES(mu_);
  [[nodiscard]] std::uint64_t MappedBytes() POS_EXCLUDES(mu_);

  [[nodiscard]] const DeviceInfo& info() const override { return info_; }
  [[nodiscard]] std::uint64_t FreeBytes() const override { return 0; }
  Status Map(DeviceAddress address, std::uint64_t bytes) override;
  Status Unmap(DeviceAddress address, std::uint64_t bytes) override;
  void AddAllocation(DeviceAddress address, std::uint64_t bytes) override;
  void RemoveAllocation(DeviceAddress address) override;
  Status MapHost(DeviceAddress, std::uint64_t) override;
  Status UnmapHost(DeviceAddress, std::uint64_t) override { return {}; }
  Result<std::unique_ptr<DeviceContext>> CreateContext(
      std::uint32_t flags, CompletionSink* sink) override;
  Status Read(DeviceAddress src, std::span<std::byte> dst) override;
  Status Write(DeviceAddress, std::span<const std::byte>) override {
    return {};
  }
  [[nodiscard]] std::uint64_t NowNs() const override;

 private:
  friend class ManualContext;
  friend class ManualStream;
  friend class ManualEvent;
  friend class ManualModule;
  struct Context {
    int number = 0;
    CompletionSink* sink = nullptr;
    int children = 0;
    DeviceError sticky = 0;
    bool living = true;
    // Work, then those who wait for it, in order. 0: work without a token.
    std::deque<std::uint64_t> waiting;
  };
  struct Report {
    CompletionSink* sink;
    std::uint64_t token;
    DeviceError error;
  };
  // `waits_only`: nothing to be done but to wait for what is under way.
  void Submit(Context* context, std::uint64_t token, bool waits_only)
      POS_EXCLUDES(mu_);
  void AddChild(Context* context, int by, const char* what) POS_EXCLUDES(mu_);
  void Close(Context* context) POS_EXCLUDES(mu_);
  void FailAll(Context* context, DeviceError error, std::vector<Report>* out)
      POS_REQUIRES(mu_);
  static void Send(const std::vector<Report>& reports);

  DeviceInfo info_;
  Mutex mu_;
  std::vector<std::unique_ptr<Context>> contexts_ POS_GUARDED_BY(mu_);
  std::map<DeviceAddress, std::uint64_t> mapped_ POS_GUARDED_BY(mu_);
  std::map<DeviceAddress, std::uint64_t> allocations_ POS_GUARDED_BY(mu_);
  std::vector<std::string> violations_ POS_GUARDED_BY(mu_);
  std::uint64_t free_bytes_ POS_GUARDED_BY(mu_);
  bool manual_ POS_GUARDED_BY(mu_) = false;
  bool fail_create_ POS_GUARDED_BY(mu_) = false;
  bool fail_map_ POS_GUARDED_BY(mu_) = false;
  bool fail_map_host_ POS_GUARDED_BY(mu_) = false;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_MANUAL_DEVICE_H_
