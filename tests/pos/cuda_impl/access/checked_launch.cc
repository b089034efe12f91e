#include "checked_launch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "pos/cuda_impl/access/image_access.h"

namespace pos::access::testing {
namespace {

using ptx::testing::LaunchOptions;
using ptx::testing::LaunchResult;
using ptx::testing::Params;
using ptx::testing::TestModule;

CheckCounts& MutableCounts() {
  static CheckCounts counts;
  return counts;
}

bool Holds(const std::vector<MemoryRange>& ranges, std::uint64_t address) {
  return std::ranges::any_of(ranges, [address](const MemoryRange& range) {
    return address - range.address < range.bytes;
  });
}

AccessSet SetOf(TestModule* module, std::string_view kernel,
                const Params& params, const LaunchOptions& options,
                std::string* text) {
  // The module outlives the analysis.
  const std::shared_ptr<const ptx::Module> parsed(
      std::shared_ptr<const ptx::Module>(), &module->module());
  ImageAccess image(parsed, "");
  const KernelAccess* const access = image.Find(kernel);
  std::vector<MemoryRange> variables;
  for (const std::string& name : access->variables) {
    const auto& all = module->module().variables();
    const auto at = std::ranges::find(all, name, &ptx::Variable::name);
    variables.push_back({module->AddressOf(name), at->bytes});
  }
  *text = std::string(kernel) + ", " + access->reason;
  const TestMemoryMap map(&module->memory());
  AccessSet set;
  EvaluateLaunch(*access, {options.grid, options.block}, params.bytes(), map,
                 variables, &set);
  return set;
}

LaunchResult Check(TestModule* module, std::string_view kernel,
                   const Params& params, const LaunchOptions& options,
                   const std::function<LaunchResult()>& run) {
  std::string text;
  const AccessSet set = SetOf(module, kernel, params, options, &text);
  const Contents before = Snapshot(&module->memory());
  const LaunchResult result = run();
  if (set.basis != AccessBasis::kProven || result.fault.has_value() ||
      !result.finished) {
    ++MutableCounts().other;
    return result;
  }
  ++MutableCounts().proven;
  const Contents after = Snapshot(&module->memory());
  EXPECT_EQ(FirstUnforeseen(before, after, set.writes), "") << text;
  Restore(before);
  std::vector<MemoryRange> known = set.reads;
  known.insert(known.end(), set.writes.begin(), set.writes.end());
  Scramble(before, known);
  const Contents scrambled = Snapshot(&module->memory());
  const LaunchResult again = run();
  EXPECT_FALSE(again.fault.has_value()) << text << ": " << again.fault->text;
  const Contents second = Snapshot(&module->memory());
  EXPECT_EQ(FirstUnforeseen(scrambled, second, set.writes), "") << text;
  for (const auto& [address, bytes] : after) {
    const std::vector<std::byte>& other = second.at(address);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] == other[i] || !Holds(set.writes, address + i)) continue;
      ADD_FAILURE() << text << ": byte " << i << " of " << bytes.size()
                    << " depends on what it does not read";
      break;
    }
  }
  Restore(after);
  return result;
}

}  // namespace

MemoryMap::Found TestMemoryMap::Find(DeviceAddress address,
                                     MemoryRange* range) const {
  const auto found = memory_->Find(address);
  if (found.limit == 0) return Found::kNothing;
  *range = {found.base, found.limit - found.base};
  return Found::kDevice;
}

Contents Snapshot(ptx::testing::TestMemory* memory) {
  Contents contents;
  for (const auto& [address, bytes] : memory->Allocations()) {
    contents[address] =
        ptx::testing::TestMemory::Download<std::byte>(address, bytes);
  }
  return contents;
}

void Restore(const Contents& contents) {
  for (const auto& [address, bytes] : contents) {
    if (bytes.empty()) continue;
    std::memcpy(reinterpret_cast<void*>(address), bytes.data(), bytes.size());
  }
}

std::string FirstUnforeseen(const Contents& before, const Contents& after,
                            const std::vector<MemoryRange>& ranges) {
  for (const auto& [address, bytes] : before) {
    const auto later = after.find(address);
    if (later == after.end()) continue;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] == later->second[i] || Holds(ranges, address + i)) continue;
      return "writes byte " + std::to_string(i) + " of " +
             std::to_string(bytes.size()) + " unforeseen";
    }
  }
  return "";
}

void Scramble(const Contents& contents,
              const std::vector<MemoryRange>& ranges) {
  for (const auto& [address, bytes] : contents) {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      if (Holds(ranges, address + i)) continue;
      const std::byte changed = bytes[i] ^ std::byte{0x5b};
      std::memcpy(reinterpret_cast<void*>(address + i), &changed, 1);
    }
  }
}

const CheckCounts& Counts() { return MutableCounts(); }

void CheckAllLaunches() { ptx::testing::SetLaunchHook(&Check); }

}  // namespace pos::access::testing
