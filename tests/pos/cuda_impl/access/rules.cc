#include "rules.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <span>

namespace pos::access::testing {
namespace {

constexpr std::string_view kHead = R"(.version 8.4
.target sm_90
.address_size 64
.global .align 8 .b8 var[4096];
.const .align 8 .b8 con[64];
.shared .align 8 .b8 arr[1024];
)";
constexpr std::string_view kEntry = R"(
.visible .entry k(.param .u64 p0, .param .u64 p1, .param .u64 p2,
                  .param .u32 n, .param .u32 m, .param .align 8 .b8 s[32])
{
  .reg .pred %p<9>;
  .reg .b16 %h<9>;
  .reg .b32 %r<30>;
  .reg .b64 %d<30>;
  .reg .f32 %f<9>;
  .reg .f64 %fd<9>;
  .local .align 8 .b8 loc[64];
)";

std::string NameOf(const MemoryRange& range) {
  static const std::map<std::uint64_t, std::string> kNames = {
      {kA, "A"}, {kB, "B"}, {kC, "C"}, {kVariable, "var"}};
  for (const auto& [base, name] : kNames) {
    if (range.address - base < kBytes) {
      const std::uint64_t from = range.address - base;
      if (from == 0 && range.bytes == kBytes) return name;
      return name + "[" + std::to_string(from) + "," +
             std::to_string(from + range.bytes) + ")";
    }
  }
  return "?";
}

std::string NamesOf(std::vector<MemoryRange> ranges) {
  std::ranges::sort(ranges, {}, &MemoryRange::address);
  std::string text;
  for (const MemoryRange& range : ranges) text += " " + NameOf(range);
  return text;
}

}  // namespace

MemoryMap::Found FakeMemory::Find(DeviceAddress address,
                                  MemoryRange* range) const {
  for (const std::uint64_t base : {kA, kB, kC, kVariable, kHost}) {
    if (address - base >= kBytes) continue;
    *range = {base, kBytes};
    return base == kHost ? Found::kHost : Found::kDevice;
  }
  return Found::kNothing;
}

Rule::Rule(std::string_view body, std::string_view before) {
  std::string text(kHead);
  text += before;
  text += kEntry;
  text += body;
  text += "\n  ret;\n}\n";
  image_ = AnalyzeImage(std::as_bytes(std::span(text)), {90, false});
  kernel_ = image_->Find("k");
  EXPECT_EQ(image_->Kernels().size(), 1u) << kernel_->reason << text;
}

std::string Rule::Launch(const Arguments& arguments) const {
  return Launch(arguments, {{2, 1, 1}, {32, 1, 1}});
}

std::string Rule::Launch(const Arguments& arguments,
                         const LaunchConfig& launch) const {
  AccessSet set;
  std::vector<MemoryRange> variables;
  for (const std::string& name : kernel_->variables) {
    variables.push_back(name == "var" ? MemoryRange{kVariable, kBytes}
                                      : MemoryRange{});
  }
  EvaluateLaunch(*kernel_, launch, std::as_bytes(std::span(&arguments, 1)),
                 FakeMemory(), variables, &set);
  constexpr const char* kNames[] = {"proven", "guessed", "unknown"};
  std::string text = kNames[static_cast<std::size_t>(set.basis)];
  if (!set.reads.empty()) text += " r:" + NamesOf(set.reads);
  if (!set.writes.empty()) text += " w:" + NamesOf(set.writes);
  return text;
}

}  // namespace pos::access::testing
