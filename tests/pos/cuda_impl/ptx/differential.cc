#include "differential.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <sstream>
#include <utility>

#include "machine.h"
#include "tests/support/random.h"

namespace pos::ptx::testing {
namespace {

constexpr std::uint64_t kMostSteps = 400'000;
constexpr int kMostWorkers = 3;
constexpr std::chrono::seconds kHangs{5};

// The memory of a kernel: what it reads, its threads' results, their common
// words. All runs have the same addresses.
class Arena {
 public:
  explicit Arena(std::uint32_t threads)
      : out_bytes_(threads * kRandomOutBytes),
        in_(memory_.Allocate(kRandomInBytes)),
        out_(memory_.Allocate(out_bytes_)),
        acc_(memory_.Allocate(kRandomAccBytes)) {
    params_.Add(in_).Add(out_).Add(acc_);
  }

  TestMemory* memory() { return &memory_; }
  [[nodiscard]] const Params& params() const { return params_; }

  // As it is before the kernel runs: small numbers, floats and any bits.
  void Fill() {
    Random random(7);
    Write(in_, kRandomInBytes, [&](std::size_t i) {
      switch (i % 5) {
        case 0:
          return std::uint64_t{random.Below(40)};
        case 1:  // two floats around one
          return (random.Next() & 0x807fffff807fffff) | 0x3f8000003f000000;
        case 2:  // a double around one
          return (random.Next() & 0x800fffffffffffff) | 0x3ff0000000000000;
        default:
          return random.Next();
      }
    });
    Write(out_, out_bytes_, [](std::size_t i) { return i * 0x10001; });
    Write(acc_, kRandomAccBytes, [&](std::size_t) { return random.Next(); });
  }
  std::vector<std::uint64_t> Contents() {
    auto all = TestMemory::Download<std::uint64_t>(out_, out_bytes_ / 8);
    for (const std::uint64_t at : {acc_, in_}) {
      const auto bytes = at == acc_ ? kRandomAccBytes : kRandomInBytes;
      const auto more = TestMemory::Download<std::uint64_t>(at, bytes / 8);
      all.insert(all.end(), more.begin(), more.end());
    }
    return all;
  }

 private:
  template <typename F>
  static void Write(std::uint64_t at, std::uint32_t bytes, F f) {
    for (std::size_t i = 0; i < bytes / 8; ++i) {
      const std::uint64_t word = f(i);
      std::memcpy(reinterpret_cast<void*>(at + 8 * i), &word, 8);
    }
  }

  TestMemory memory_;
  std::uint32_t out_bytes_;
  std::uint64_t in_;
  std::uint64_t out_;
  std::uint64_t acc_;
  Params params_;
};

std::string Describe(const Way& way) {
  constexpr const char* kLanes[] = {"together", "masked", "apart"};
  return std::string(IsaLevelName(way.level)) + ", lanes " +
         kLanes[static_cast<int>(way.lanes)] + ", threads " +
         std::to_string(way.threads);
}

std::string Difference(const RandomKernel& kernel,
                       const std::vector<std::uint64_t>& got,
                       const std::vector<std::uint64_t>& want) {
  constexpr std::size_t kWords = kRandomOutBytes / 8;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i]) continue;
    const std::size_t thread = i / kWords;
    const bool own = thread < std::size_t{kernel.blocks} * kernel.threads;
    char text[160];
    std::snprintf(text, sizeof(text),
                  "0x%016llx, not 0x%016llx, in word %zu of %s %zu",
                  static_cast<unsigned long long>(got[i]),
                  static_cast<unsigned long long>(want[i]), i % kWords,
                  own ? "thread" : "the common memory", thread);
    return text;
  }
  return "";
}

// Whether the interpreter leaves `want`.
void RunAndCompare(const RandomKernel& kernel, LoadedModule* module,
                   const Way& way, Arena* arena,
                   const std::vector<std::uint64_t>& want, Comparison* result) {
  const auto conclude = [result](Comparison::Kind kind, std::string text) {
    result->kind = kind;
    result->text = std::move(text);
  };
  auto decoded = module->GetKernel("k");
  if (!decoded.ok()) {
    return conclude(Comparison::Kind::kRefused, decoded.status().ToString());
  }
  LaunchOptions options;
  options.threads = way.threads;
  options.budget = way.budget;
  options.limit = kHangs;
  LaunchParams launch;
  launch.grid = {kernel.blocks, 1, 1};
  launch.block = {kernel.threads, 1, 1};
  launch.params = arena->params().bytes();
  launch.lanes = way.lanes;
  arena->Fill();
  auto run =
      GridRun::Create(*decoded, launch, arena->memory(), arena->memory());
  if (!run.ok()) {
    return conclude(Comparison::Kind::kRefused, run.status().ToString());
  }
  if (!RunToTheEnd(run->get(), options)) {
    return conclude(Comparison::Kind::kHangs, "it does not end");
  }
  if ((*run)->fault() != nullptr) {
    return conclude(Comparison::Kind::kFaults, (*run)->fault()->text);
  }
  const std::string difference = Difference(kernel, arena->Contents(), want);
  if (!difference.empty()) {
    conclude(Comparison::Kind::kDiffers, difference);
  }
}

std::string Joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

}  // namespace

std::vector<Way> AllWays() {
  std::vector<Way> ways;
  for (const IsaLevel level : RunnableLevels()) {
    ways.push_back({level, LanePolicy::kTogether, 1, 100000});
    ways.push_back({level, LanePolicy::kMasked, 1, 100000});
  }
  // That is a matter of order; instructions are those of masked lanes.
  ways.push_back({BestIsaLevel(), LanePolicy::kApart, 1, 100000});
  // Many short turns, of several workers.
  ways.push_back({BestIsaLevel(), LanePolicy::kTogether, kMostWorkers, 61});
  return ways;
}

Comparison Compare(const RandomKernel& kernel, const std::vector<Way>& ways) {
  Comparison result;
  const auto refuse = [&result](const Status& status) {
    result.kind = Comparison::Kind::kRefused;
    result.text = status.ToString();
    return result;
  };
  const auto module = Module::Parse(kernel.text);
  if (!module.ok()) return refuse(module.status());
  Arena arena(kernel.blocks * kernel.threads);
  arena.Fill();
  Machine machine((*module)->unit(), arena.memory());
  const Status ran = machine.Run(
      "k", {kernel.blocks, kernel.threads, arena.params().bytes(), kMostSteps});
  result.steps = machine.steps();
  if (ran.code() == Code::kAborted) {
    result.kind = Comparison::Kind::kTooLong;
    return result;
  }
  if (!ran.ok()) return refuse(ran);
  const std::vector<std::uint64_t> want = arena.Contents();
  std::optional<LoadedModule> loaded;
  std::optional<IsaLevel> level;
  for (const Way& way : ways) {
    if (level != way.level)
      loaded.emplace(*module, std::vector<std::uint64_t>(), way.level);
    level = way.level;
    RunAndCompare(kernel, &*loaded, way, &arena, want, &result);
    if (result.kind == Comparison::Kind::kAgrees) continue;
    result.way = way;
    result.text = Describe(way) + ": " + result.text;
    break;
  }
  return result;
}

RandomKernel Reduced(RandomKernel kernel, const Comparison& found,
                     std::chrono::seconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  std::vector<std::string> lines;
  std::istringstream text(kernel.text);
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  for (std::size_t chunk = lines.size() / 2; chunk > 0;) {
    bool smaller = false;
    for (std::size_t at = 0; at < lines.size();) {
      if (std::chrono::steady_clock::now() > deadline) return kernel;
      std::vector<std::string> fewer = lines;
      const auto begin = fewer.begin() + static_cast<std::ptrdiff_t>(at);
      const auto count = std::min(chunk, lines.size() - at);
      fewer.erase(begin, begin + static_cast<std::ptrdiff_t>(count));
      RandomKernel candidate = kernel;
      candidate.text = Joined(fewer);
      if (Compare(candidate, {found.way}).kind == found.kind) {
        kernel = std::move(candidate);
        lines = std::move(fewer);
        smaller = true;
      } else {
        at += chunk;
      }
    }
    if (!smaller || chunk > lines.size()) chunk /= 2;
  }
  return kernel;
}

}  // namespace pos::ptx::testing
