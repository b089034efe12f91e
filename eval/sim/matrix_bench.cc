// How fast the PTX interpreter multiplies matrices.
//
// Question: how many matrix instructions a second does one core execute, by
//   instruction-set level?
// Unit: instructions of a warp per second (items_per_second); FLOP is what
//   their products and sums come to.
// Baseline: none that does the same: a plain loop of fma does not cut off sums
//   as tensor cores do.
//
//   matrix_bench --benchmark_filter=Wmma
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/ptx/exec.h"
#include "pos/cuda_impl/ptx/module.h"

namespace pos::ptx {
namespace {

class NoMemory final : public MemoryView, public KernelOutput {
 public:
  Range Find(std::uint64_t) override { return {}; }
  std::uint64_t Generation() override { return 0; }
  std::uint64_t Malloc(std::uint64_t) override { return 0; }
  bool Free(std::uint64_t) override { return false; }
  void Print(std::string_view) override {}
  void PrintFailure(std::string_view) override {}
};

constexpr std::int64_t kTurns = 1000;
constexpr std::int64_t kPerTurn = 4;

// Four of `instruction` to a turn. Factors hold `ones`; %r31 is the address of
// shared memory, %r32 the lane's row there.
std::string Loop(const std::string& instruction, const std::string& ones) {
  std::string text = R"(.version 8.8
.target sm_90
.address_size 64
.visible .entry loop()
{
.shared .align 128 .b8 s[4096];
.reg .b32 %r<40>, %n;
.reg .b64 %d<8>;
.reg .pred %p;
mov.u32 %r31, s;
mov.u32 %n, %tid.x;
mad.lo.u32 %r32, %n, 16, %r31;
)";
  for (int i = 0; i < 31; ++i) {
    text +=
        "mov.b32 %r" + std::to_string(i) + ", " + (i < 16 ? ones : "0") + ";\n";
  }
  for (int i = 0; i < 8; ++i) {
    text += "mov.b64 %d" + std::to_string(i) + ", 0;\n";
  }
  text += "mov.u32 %n, " + std::to_string(kTurns) + ";\nLOOP:\n";
  for (std::int64_t i = 0; i < kPerTurn; ++i) text += instruction + ";\n";
  return text +
         "add.s32 %n, %n, -1;\nsetp.ne.s32 %p, %n, 0;\n@%p bra LOOP;\nret;\n}"
         "\n";
}

void Run(benchmark::State& state, const std::string& instruction,
         const std::string& ones, double flop) {
  const auto level = static_cast<IsaLevel>(state.range(0));
  state.SetLabel(std::string(IsaLevelName(level)));
  if (level > BestIsaLevel()) {
    state.SkipWithError("this processor does not have it");
    return;
  }
  NoMemory memory;
  const auto module = Module::Parse(Loop(instruction, ones));
  if (!module.ok()) std::abort();
  LoadedModule loaded(*module, {}, level);
  const auto kernel = loaded.GetKernel("loop");
  if (!kernel.ok()) std::abort();
  LaunchParams launch;
  launch.block = {32, 1, 1};
  WorkerScratch scratch;
  for (auto _ : state) {
    auto run = GridRun::Create(*kernel, launch, &memory, &memory);
    while (!(*run)->finished()) (*run)->Run(&scratch, 100000);
    if ((*run)->fault() != nullptr) std::abort();
  }
  const std::int64_t items = state.iterations() * kTurns * kPerTurn;
  state.SetItemsProcessed(items);
  if (flop > 0) {
    state.counters["FLOP"] = benchmark::Counter(
        flop * static_cast<double>(items), benchmark::Counter::kIsRate);
  }
}

constexpr const char* kA = "{%r0, %r1, %r2, %r3}, {%r4, %r5}";
constexpr const char* kC = "{%r16, %r17, %r18, %r19}";
constexpr const char* kWmmaAB =
    "{%r0, %r1, %r2, %r3, %r4, %r5, %r6, %r7}, "
    "{%r8, %r9, %r10, %r11, %r12, %r13, %r14, %r15}";
constexpr const char* kWmmaC =
    "{%r16, %r17, %r18, %r19, %r20, %r21, %r22, %r23}";

void Mma(benchmark::State& state, const std::string& types,
         const std::string& ones, double k) {
  Run(state, "mma.sync.aligned." + types + " " + kC + ", " + kA + ", " + kC,
      ones, 2 * 16 * 8 * k);
}
void MmaHalf(benchmark::State& state) {
  Mma(state, "m16n8k16.row.col.f32.f16.f16.f32", "0x3c003c00", 16);
}
void MmaBfloat(benchmark::State& state) {
  Mma(state, "m16n8k16.row.col.f32.bf16.bf16.f32", "0x3f803f80", 16);
}
void MmaTf32(benchmark::State& state) {
  Mma(state, "m16n8k8.row.col.f32.tf32.tf32.f32", "0x3f800000", 8);
}
void MmaFp8(benchmark::State& state) {
  Mma(state, "m16n8k32.row.col.f32.e4m3.e4m3.f32", "0x38383838", 32);
}
void MmaS8(benchmark::State& state) {
  Mma(state, "m16n8k32.row.col.s32.s8.s8.s32", "0x01010101", 32);
}
// With a NaN among the factors.
void MmaNan(benchmark::State& state) {
  Mma(state, "m16n8k16.row.col.f32.f16.f16.f32", "0x7fff3c00", 16);
}
void MmaDouble(benchmark::State& state) {
  Run(state,
      "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%d0, %d1}, {%d2}, "
      "{%d3}, {%d0, %d1}",
      "0", 2 * 8 * 8 * 4);
}
void WmmaHalf(benchmark::State& state) {
  Run(state,
      std::string("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 ") + kWmmaC +
          ", " + kWmmaAB + ", " + kWmmaC,
      "0x3c003c00", 2 * 16 * 16 * 16);
}
void WmmaLoad(benchmark::State& state) {
  Run(state,
      "wmma.load.a.sync.aligned.row.m16n16k16.shared.f16 {%r16, %r17, %r18, "
      "%r19, %r20, %r21, %r22, %r23}, [%r31], 24",
      "0", 0);
}
void Ldmatrix(benchmark::State& state) {
  Run(state,
      std::string("ldmatrix.sync.aligned.m8n8.x4.shared.b16 ") + kC +
          ", [%r32]",
      "0", 0);
}

BENCHMARK(MmaHalf)->DenseRange(0, 2);
BENCHMARK(MmaBfloat)->DenseRange(0, 2);
BENCHMARK(MmaTf32)->DenseRange(0, 2);
BENCHMARK(MmaFp8)->DenseRange(0, 2);
BENCHMARK(MmaS8)->DenseRange(0, 2);
BENCHMARK(MmaNan)->DenseRange(0, 2);
BENCHMARK(MmaDouble)->DenseRange(0, 2);
BENCHMARK(WmmaHalf)->DenseRange(0, 2);
BENCHMARK(WmmaLoad)->DenseRange(0, 2);
BENCHMARK(Ldmatrix)->DenseRange(0, 2);

}  // namespace
}  // namespace pos::ptx

BENCHMARK_MAIN();
