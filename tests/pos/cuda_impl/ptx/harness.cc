#include "harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

namespace pos::ptx::testing {
namespace {

constexpr std::uint64_t kAlignment = 256;
constexpr std::uint64_t kGap = 4096;

LaunchHook& Hook() {
  static LaunchHook hook;
  return hook;
}

}  // namespace

void SetLaunchHook(LaunchHook hook) { Hook() = std::move(hook); }

std::map<std::uint64_t, std::uint64_t> TestMemory::Allocations() {
  const MutexLock lock(&mu_);
  std::map<std::uint64_t, std::uint64_t> all;
  for (const auto& [address, allocation] : allocations_) {
    all.emplace(address, allocation.bytes);
  }
  return all;
}

std::uint64_t TestMemory::Allocate(std::uint64_t bytes) {
  Allocation allocation;
  allocation.storage.reset(new std::byte[bytes + 2 * kGap + kAlignment]());
  allocation.bytes = bytes;
  const auto start =
      reinterpret_cast<std::uint64_t>(allocation.storage.get()) + kGap;
  const std::uint64_t at = (start + kAlignment - 1) / kAlignment * kAlignment;
  const MutexLock lock(&mu_);
  allocations_.emplace(at, std::move(allocation));
  return at;
}

MemoryView::Range TestMemory::Find(std::uint64_t address) {
  const MutexLock lock(&mu_);
  auto after = allocations_.upper_bound(address);
  if (after == allocations_.begin()) return {};
  --after;
  const std::uint64_t limit = after->first + after->second.bytes;
  if (address >= limit) return {};
  return {after->first, limit};
}

std::uint64_t TestMemory::Malloc(std::uint64_t bytes) {
  if (bytes > (64u << 20)) return 0;
  const std::uint64_t at = Allocate(bytes);
  const MutexLock lock(&mu_);
  allocations_[at].from_kernel = true;
  return at;
}

bool TestMemory::Free(std::uint64_t address) {
  const MutexLock lock(&mu_);
  const auto found = allocations_.find(address);
  if (found == allocations_.end() || !found->second.from_kernel) return false;
  allocations_.erase(found);
  return true;
}

void TestMemory::Print(std::string_view text) {
  const MutexLock lock(&mu_);
  printed_ += text;
}

std::string TestMemory::printed() {
  const MutexLock lock(&mu_);
  return printed_;
}

TestModule::TestModule(std::span<const std::string_view> texts,
                       IsaLevel level) {
  auto parsed = Module::Link(texts);
  if (!parsed.ok()) {
    ADD_FAILURE() << parsed.status().ToString();
    std::abort();
  }
  module_ = *parsed;
  for (const Variable& variable : module_->variables()) {
    addresses_.push_back(
        variable.external
            ? 0
            : memory_.Allocate(std::max<std::uint64_t>(1, variable.bytes)));
  }
  loaded_ = std::make_unique<LoadedModule>(module_, addresses_, level);
  for (std::size_t i = 0; i < addresses_.size(); ++i) {
    const std::vector<std::byte> bytes = loaded_->InitialBytes(i);
    if (!bytes.empty()) {
      std::memcpy(reinterpret_cast<void*>(addresses_[i]), bytes.data(),
                  bytes.size());
    }
  }
}

std::uint64_t TestModule::AddressOf(std::string_view variable) const {
  for (std::size_t i = 0; i < addresses_.size(); ++i) {
    if (module_->variables()[i].name == variable) return addresses_[i];
  }
  ADD_FAILURE() << "no variable " << variable;
  return 0;
}

bool RunToTheEnd(GridRun* run, const LaunchOptions& options) {
  std::atomic<int> finishers{0};
  std::atomic<bool> hung{false};
  const auto deadline = std::chrono::steady_clock::now() + options.limit;
  const auto work = [&] {
    WorkerScratch scratch;
    while (!run->finished()) {
      const GridRun::Step step = run->Run(&scratch, options.budget);
      if (step == GridRun::Step::kFinished) finishers.fetch_add(1);
      if (step == GridRun::Step::kNothingForYou) std::this_thread::yield();
      if (std::chrono::steady_clock::now() > deadline) {
        hung.store(true);
        run->Cancel();
      }
    }
  };
  std::vector<std::thread> workers;
  for (int i = 1; i < options.threads; ++i) workers.emplace_back(work);
  work();
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(finishers.load(), 1);
  return !hung.load();
}

LaunchResult TestModule::Launch(std::string_view name, const Params& params,
                                const LaunchOptions& options) {
  const auto run = [&] { return Run(name, params, options); };
  const LaunchHook& hook = Hook();
  return hook ? hook(this, name, params, options, run) : run();
}

LaunchResult TestModule::Run(std::string_view name, const Params& params,
                             const LaunchOptions& options) {
  auto kernel = loaded_->GetKernel(name);
  if (!kernel.ok()) {
    ADD_FAILURE() << kernel.status().ToString();
    return {};
  }
  LaunchParams launch;
  launch.grid = options.grid;
  launch.block = options.block;
  launch.dynamic_shared_bytes = options.dynamic_shared_bytes;
  launch.cooperative = options.cooperative;
  launch.params = params.bytes();
  launch.lanes = options.lanes;
  auto created = GridRun::Create(*kernel, launch, &memory_, &memory_);
  if (!created.ok()) {
    ADD_FAILURE() << created.status().ToString();
    return {};
  }
  LaunchResult result;
  result.finished = RunToTheEnd(created->get(), options);
  EXPECT_TRUE(result.finished) << name << " did not end";
  const Fault* const fault = (*created)->fault();
  if (fault != nullptr) result.fault = *fault;
  return result;
}

std::vector<IsaLevel> RunnableLevels() {
  std::vector<IsaLevel> levels;
  for (const IsaLevel level :
       {IsaLevel::kBaseline, IsaLevel::kV3, IsaLevel::kV4}) {
    if (level <= BestIsaLevel()) levels.push_back(level);
  }
  return levels;
}

std::string GoldenPtx(const std::string& name) {
  std::ifstream file(std::string(POS_GOLDEN_PTX_DIR) + "/" + name);
  EXPECT_TRUE(file.good()) << name;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace pos::ptx::testing
