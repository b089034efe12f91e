// How fast the PTX interpreter runs loops.
//
// Question: how many thread instructions a second does one core execute, by
//   instruction-set level, by how addresses lie and by how many lanes are
//   active?
// Unit: thread instructions per second (items_per_second): ten for each turn
//   of the loop in each active lane.
// Baseline: the same loop in a program written for it alone, one function with
//   the registers of a warp in arrays; the figures are in README.md.
//
//   interpreter_bench --benchmark_filter=Coalesced
#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/ptx/exec.h"
#include "pos/cuda_impl/ptx/module.h"

namespace pos::ptx {
namespace {

class OneAllocation final : public MemoryView, public KernelOutput {
 public:
  explicit OneAllocation(std::size_t bytes) : words_(bytes / 4, 0x3f800000) {}
  [[nodiscard]] std::uint64_t address() const {
    return reinterpret_cast<std::uint64_t>(words_.data());
  }
  Range Find(std::uint64_t at) override {
    const std::uint64_t limit = address() + words_.size() * 4;
    if (at < address() || at >= limit) return {};
    return {address(), limit};
  }
  std::uint64_t Generation() override { return 0; }
  std::uint64_t Malloc(std::uint64_t) override { return 0; }
  bool Free(std::uint64_t) override { return false; }
  void Print(std::string_view) override {}
  void PrintFailure(std::string_view) override {}

 private:
  std::vector<std::uint32_t> words_;
};

// mad, and, mad.wide, ld, fma, fma, st, add, setp, bra. Addresses of turn i:
// ((i * step + lane * spread) & mask) * 4. Lane l makes
// turns * (l + 1) / 32 turns when `uneven` is 1.
constexpr std::string_view kLoop = R"(.version 8.0
.target sm_90
.address_size 64
.visible .entry loop(.param .u64 p, .param .u32 turns, .param .u32 step,
                     .param .u32 spread, .param .u32 mask, .param .u32 uneven)
{
.reg .b64 %base, %a;
.reg .b32 %n, %step, %first, %mask, %i, %x, %t, %u;
.reg .f32 %f<5>;
.reg .pred %p;
ld.param.u64 %base, [p];
ld.param.u32 %n, [turns];
ld.param.u32 %step, [step];
ld.param.u32 %x, [spread];
ld.param.u32 %mask, [mask];
ld.param.u32 %u, [uneven];
mov.u32 %t, %tid.x;
mul.lo.u32 %first, %t, %x;
setp.eq.u32 %p, %u, 0;
@%p bra START;
add.u32 %t, %t, 1;
mul.lo.u32 %n, %n, %t;
shr.u32 %n, %n, 5;
START:
mov.u32 %i, 0;
mov.f32 %f1, 0f3F000000;
mov.f32 %f2, 0f3F000000;
LOOP:
mad.lo.u32 %x, %i, %step, %first;
and.b32 %x, %x, %mask;
mad.wide.u32 %a, %x, 4, %base;
ld.global.f32 %f0, [%a];
fma.rn.f32 %f1, %f0, 0f3F000000, %f1;
fma.rn.f32 %f2, %f1, 0f3E800000, %f0;
st.global.f32 [%a], %f2;
add.u32 %i, %i, 1;
setp.lt.u32 %p, %i, %n;
@%p bra LOOP;
ret;
}
)";

struct Shape {
  std::uint32_t threads = 256;
  std::uint32_t turns = 4096;
  std::uint32_t step = 32;
  std::uint32_t spread = 1;
  std::uint32_t mask = 0xfff;  // words: 16 KiB
  std::uint32_t uneven = 0;
};

void RunLoop(benchmark::State& state, const Shape& shape) {
  const auto level = static_cast<IsaLevel>(state.range(0));
  state.SetLabel(std::string(IsaLevelName(level)));
  if (level > BestIsaLevel()) {
    state.SkipWithError("this processor does not have it");
    return;
  }
  OneAllocation memory((std::size_t{shape.mask} + 1) * 4);
  const auto module = Module::Parse(kLoop);
  LoadedModule loaded(*module, {}, level);
  const auto kernel = loaded.GetKernel("loop");
  if (!kernel.ok()) std::abort();
  std::array<std::byte, 28> params{};
  const std::uint64_t address = memory.address();
  const std::uint32_t words[] = {shape.turns, shape.step, shape.spread,
                                 shape.mask, shape.uneven};
  std::memcpy(params.data(), &address, sizeof(address));
  std::memcpy(params.data() + 8, words, sizeof(words));
  LaunchParams launch;
  launch.block = {shape.threads, 1, 1};
  launch.params = params;
  WorkerScratch scratch;
  for (auto _ : state) {
    auto run = GridRun::Create(*kernel, launch, &memory, &memory);
    while (!(*run)->finished()) (*run)->Run(&scratch, 100000);
    if ((*run)->fault() != nullptr) std::abort();
  }
  std::uint64_t turns = std::uint64_t{shape.turns} * shape.threads;
  if (shape.uneven != 0) {
    turns = 0;
    for (std::uint64_t t = 1; t <= shape.threads; ++t) {
      turns += shape.turns * t / 32;
    }
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(10 * turns) *
                          state.iterations());
}

// 32 neighbours, all lanes.
void Coalesced(benchmark::State& state) { RunLoop(state, {}); }
// Anywhere in 16 KiB.
void Scattered(benchmark::State& state) {
  RunLoop(state, {.step = 0x9e3779b1, .spread = 0x85ebca6b});
}
// Anywhere in 64 MiB: the host's memory decides.
void ScatteredFar(benchmark::State& state) {
  RunLoop(state, {.turns = 1024,
                  .step = 0x9e3779b1,
                  .spread = 0x85ebca6b,
                  .mask = 0xffffff});
}
// Lanes leave the loop one after the other.
void Shrinking(benchmark::State& state) {
  RunLoop(state, {.threads = 32, .uneven = 1});
}
void OneLane(benchmark::State& state) { RunLoop(state, {.threads = 1}); }

BENCHMARK(Coalesced)->DenseRange(0, 2);
BENCHMARK(Scattered)->DenseRange(0, 2);
BENCHMARK(ScatteredFar)->DenseRange(0, 2);
BENCHMARK(Shrinking)->DenseRange(0, 2);
BENCHMARK(OneLane)->DenseRange(0, 2);

}  // namespace
}  // namespace pos::ptx

BENCHMARK_MAIN();
