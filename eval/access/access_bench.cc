// What the access analysis costs.
//
// Question: what does it add to a launch while a checkpoint or a restore
//   watches, and how long does a kernel take once?
// Unit: time per launch, per module (PTX text to the last kernel's analysis).
// Baseline: LookUps, finding in a map of 1,000 allocations what the pointers
//   of that launch point into: less is not possible.
//
//   access_bench [--smoke] [Google Benchmark's options]
#include <benchmark/benchmark.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/access/image_access.h"

namespace pos::access {
namespace {

constexpr std::uint64_t kArena = 0x7e8000000000;
constexpr std::uint64_t kEach = 1u << 20;
constexpr std::uint64_t kAllocations = 1000;

class Memory final : public MemoryMap {
 public:
  Memory() {
    for (std::uint64_t i = 0; i < kAllocations; ++i) {
      map_[kArena + i * 2 * kEach] = kEach;
    }
  }
  Found Find(DeviceAddress address, MemoryRange* range) const override {
    auto after = map_.upper_bound(address);
    if (after == map_.begin()) return Found::kNothing;
    --after;
    if (address - after->first >= after->second) return Found::kNothing;
    *range = {after->first, after->second};
    return Found::kDevice;
  }

 private:
  std::map<std::uint64_t, std::uint64_t> map_;
};

std::string Golden(std::string_view name) {
  std::ifstream file(std::string(POS_GOLDEN_PTX_DIR) + "/" + std::string(name),
                     std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::shared_ptr<ImageAccess> Analyzed(const std::string& text) {
  return AnalyzeImage(std::as_bytes(std::span(text)), {120, false});
}

// Pointers in all words, 256 bytes of them.
std::vector<std::uint64_t> Parameters() {
  std::vector<std::uint64_t> words(32);
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = kArena + (i * 37 % kAllocations) * 2 * kEach + 4096;
  }
  return words;
}

void Launch(benchmark::State& state, const std::string& file,
            const std::string& name) {
  const auto image = Analyzed(Golden(file));
  const KernelAccess* const kernel = image->Find(name);
  const std::vector<std::uint64_t> words = Parameters();
  const std::vector<MemoryRange> variables(kernel->variables.size(),
                                           {kArena, 4096});
  const Memory memory;
  AccessSet set;
  for (auto step : state) {
    EvaluateLaunch(*kernel, {{1000, 1, 1}, {256, 1, 1}},
                   std::as_bytes(std::span(words)), memory, variables, &set);
    benchmark::DoNotOptimize(set.writes.data());
  }
  state.counters["proven"] = set.basis == AccessBasis::kProven ? 1 : 0;
  state.counters["words"] = static_cast<double>(kernel->words.size());
  state.counters["places"] = static_cast<double>(kernel->touches.size());
  state.counters["expressions"] = static_cast<double>(kernel->exprs.size());
}

void LookUps(benchmark::State& state) {
  const Memory memory;
  const std::vector<std::uint64_t> words = Parameters();
  for (auto step : state) {
    MemoryRange range;
    for (std::int64_t i = 0; i < state.range(0); ++i) {
      benchmark::DoNotOptimize(
          memory.Find(words[static_cast<std::size_t>(i)], &range));
    }
  }
}
BENCHMARK(LookUps)->Arg(1)->Arg(3)->Arg(8);

void Module(benchmark::State& state, const std::string& file) {
  const std::string text = Golden(file);
  std::size_t kernels = 0;
  for (auto step : state) {
    const auto image = Analyzed(text);
    for (const std::string& name : image->Kernels()) {
      benchmark::DoNotOptimize(image->Find(name));
      ++kernels;
    }
  }
  state.counters["kernels"] =
      static_cast<double>(kernels) / static_cast<double>(state.iterations());
  state.counters["bytes"] = static_cast<double>(text.size());
}

void Parse(benchmark::State& state, const std::string& file) {
  const std::string text = Golden(file);
  for (auto step : state) benchmark::DoNotOptimize(Analyzed(text));
}

void Register() {
  const std::string language = "language.sm_90.ptx";
  for (const std::string& file :
       {std::string("basic.sm_90.ptx"), language, std::string("sync.sm_80.ptx"),
        std::string("matrix.sm_90.ptx")}) {
    benchmark::RegisterBenchmark(("Parse/" + file).c_str(), Parse, file);
    benchmark::RegisterBenchmark(("Module/" + file).c_str(), Module, file);
    const auto image = Analyzed(Golden(file));
    for (const std::string& name : image->Kernels()) {
      benchmark::RegisterBenchmark(("Launch/" + file + "/" + name).c_str(),
                                   Launch, file, name);
    }
  }
}

}  // namespace
}  // namespace pos::access

int main(int argc, char** argv) {
  std::vector<char*> arguments(argv, argv + argc);
  char instant[] = "--benchmark_min_time=0.001";
  for (char*& argument : arguments) {
    if (std::strcmp(argument, "--smoke") == 0) argument = instant;
  }
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  pos::access::Register();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
