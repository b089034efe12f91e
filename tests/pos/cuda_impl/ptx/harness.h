// Runs kernels for tests: memory with allocations, launches on one or several
// threads, what was printed and what faulted.
#ifndef TESTS_POS_CUDA_IMPL_PTX_HARNESS_H_
#define TESTS_POS_CUDA_IMPL_PTX_HARNESS_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/cuda_impl/ptx/exec.h"
#include "pos/cuda_impl/ptx/module.h"

namespace pos::ptx::testing {

// Allocations of host memory, exact to the byte.
class TestMemory final : public MemoryView, public KernelOutput {
 public:
  Range Find(std::uint64_t address) override;
  std::uint64_t Generation() override { return 0; }
  std::uint64_t Malloc(std::uint64_t bytes) override;
  bool Free(std::uint64_t address) override;
  void Print(std::string_view text) override;
  void PrintFailure(std::string_view text) override { Print(text); }

  // 256-byte aligned, zeroed, with unallocated memory around it.
  std::uint64_t Allocate(std::uint64_t bytes);
  [[nodiscard]] std::string printed();
  // Addresses and sizes of all allocations.
  [[nodiscard]] std::map<std::uint64_t, std::uint64_t> Allocations();

  template <typename T>
  std::uint64_t Upload(const std::vector<T>& values) {
    const std::uint64_t at = Allocate(values.size() * sizeof(T));
    std::memcpy(reinterpret_cast<void*>(at), values.data(),
                values.size() * sizeof(T));
    return at;
  }
  template <typename T>
  static std::vector<T> Download(std::uint64_t at, std::size_t count) {
    std::vector<T> values(count);
    std::memcpy(values.data(), reinterpret_cast<const void*>(at),
                count * sizeof(T));
    return values;
  }

 private:
  struct Allocation {
    std::unique_ptr<std::byte[]> storage;
    std::uint64_t bytes = 0;
    bool from_kernel = false;
  };
  Mutex mu_;
  std::map<std::uint64_t, Allocation> allocations_ POS_GUARDED_BY(mu_);
  std::string printed_ POS_GUARDED_BY(mu_);
};

// Parameters of a kernel in order, each aligned to its size.
class Params {
 public:
  template <typename T>
  Params& Add(const T& value) {
    bytes_.resize((bytes_.size() + alignof(T) - 1) / alignof(T) * alignof(T));
    const std::size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    std::memcpy(bytes_.data() + at, &value, sizeof(T));
    return *this;
  }
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

struct LaunchOptions {
  std::array<std::uint32_t, 3> grid{1, 1, 1};
  std::array<std::uint32_t, 3> block{32, 1, 1};
  std::uint32_t dynamic_shared_bytes = 0;
  bool cooperative = false;
  int threads = 1;                // workers
  std::uint64_t budget = 100000;  // of one Run call
  LanePolicy lanes = DefaultLanePolicy();
  // After which the launch is cancelled: a hang fails.
  std::chrono::seconds limit{30};
};

struct LaunchResult {
  bool finished = false;
  std::optional<Fault> fault;
};

// Runs the grid on options.threads threads; false when it was cancelled after
// options.limit.
bool RunToTheEnd(GridRun* run, const LaunchOptions& options);

class TestModule;

// Stands around every launch of a TestModule when it is set: calls `run`, once
// or several times, and returns what the launch gives.
using LaunchHook = std::function<LaunchResult(
    TestModule* module, std::string_view kernel, const Params& params,
    const LaunchOptions& options, const std::function<LaunchResult()>& run)>;
void SetLaunchHook(LaunchHook hook);

// A module in memory of its own.
class TestModule {
 public:
  // Fails the test when the text does not parse.
  explicit TestModule(std::string_view text, IsaLevel level = BestIsaLevel())
      : TestModule(std::span(&text, 1), level) {}
  // Of several texts, linked.
  explicit TestModule(std::span<const std::string_view> texts,
                      IsaLevel level = BestIsaLevel());

  TestMemory& memory() { return memory_; }
  LoadedModule& loaded() { return *loaded_; }
  [[nodiscard]] const Module& module() const { return *module_; }
  [[nodiscard]] std::uint64_t AddressOf(std::string_view variable) const;

  // Fails the test when the kernel cannot be decoded or launched.
  LaunchResult Launch(std::string_view kernel, const Params& params,
                      const LaunchOptions& options = {});

 private:
  LaunchResult Run(std::string_view kernel, const Params& params,
                   const LaunchOptions& options);

  TestMemory memory_;
  std::shared_ptr<const Module> module_;
  std::vector<std::uint64_t> addresses_;
  std::unique_ptr<LoadedModule> loaded_;
};

// Levels that this processor can run.
std::vector<IsaLevel> RunnableLevels();

// Reads tests/golden/ptx/`name`.
std::string GoldenPtx(const std::string& name);

}  // namespace pos::ptx::testing

#endif  // TESTS_POS_CUDA_IMPL_PTX_HARNESS_H_
