// How fast the PTX interpreter runs what kernels are made of.
//
// Question: how many thread instructions a second does one core execute, by
//   kind of instruction and by instruction-set level; what do short blocks and
//   barriers cost?
// Unit: thread instructions per second (items_per_second): those of the loop's
//   body, in lanes that execute them. ManyBlocks: blocks per second. Barriers:
//   `bar.sync` of one thread.
// Baseline: Arithmetic, the plainest mix. (interpreter_bench has a floor.)
// Cases whose instructions are not implemented say so and are skipped.
#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/ptx/exec.h"
#include "pos/cuda_impl/ptx/module.h"

namespace pos::ptx {
namespace {

class OneAllocation final : public MemoryView, public KernelOutput {
 public:
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
  std::vector<std::uint32_t> words_ =
      std::vector<std::uint32_t>(1 << 16, 0x3f000000);
};

// A loop of %n turns around `body`; add, setp and bra are the loop's own.
// Ready: %t thread, %a address of the thread's word (global), %s the same in
// shared memory, %i turn, %x %y %z, %f0-%f3, %g0-%g3 (f64), %h0-%h3, predicates
// %p %q.
std::string KernelOf(std::string_view body) {
  return std::string(R"(.version 8.0
.target sm_90
.address_size 64
.shared .align 16 .b8 tile[16384];
.visible .entry loop(.param .u64 p, .param .u32 turns)
{
.reg .b64 %a, %b;
.reg .b32 %n, %i, %t, %s, %x, %y, %z;
.reg .f32 %f<4>;
.reg .f64 %g<4>;
.reg .b16 %h<4>;
.reg .pred %p, %q;
ld.param.u64 %b, [p];
ld.param.u32 %n, [turns];
mov.u32 %t, %tid.x;
mad.wide.u32 %a, %t, 4, %b;
mov.u32 %s, tile;
mad.lo.u32 %s, %t, 4, %s;
mov.u32 %x, %t;
mov.u32 %y, 3;
mov.u32 %z, 5;
mov.f32 %f0, 0f3F000000;
mov.f32 %f1, 0f3F000000;
mov.f32 %f2, 0f3E800000;
mov.f32 %f3, 0f3F000000;
mov.f64 %g0, 0d3FE0000000000000;
mov.f64 %g1, 0d3FE0000000000000;
mov.f64 %g2, 0d3FD0000000000000;
mov.f64 %g3, 0d3FE0000000000000;
mov.b16 %h0, 0x3800;
mov.b16 %h1, 0x3800;
mov.b16 %h2, 0x3400;
mov.b16 %h3, 0x3800;
st.shared.u32 [%s], %t;
mov.u32 %i, 0;
LOOP:
)") + std::string(body) +
         R"(
add.u32 %i, %i, 1;
setp.lt.u32 %p, %i, %n;
@%p bra LOOP;
st.global.u32 [%a], %x;
ret;
}
)";
}

struct Mix {
  std::string_view body;
  // Instructions of a warp's turn, times the share of lanes that execute them.
  double lane_instructions = 0;
  std::uint32_t threads = 256;
  std::uint32_t blocks = 1;
  std::uint32_t turns = 2048;
};

void Run(benchmark::State& state, const Mix& mix) {
  const auto level = static_cast<IsaLevel>(state.range(0));
  state.SetLabel(std::string(IsaLevelName(level)));
  if (level > BestIsaLevel()) {
    state.SkipWithError("this processor does not have it");
    return;
  }
  OneAllocation memory;
  const auto module = Module::Parse(KernelOf(mix.body));
  if (!module.ok()) std::abort();
  const std::string& why = (*module)->entries()[0].unsupported;
  if (!why.empty()) {
    state.SkipWithError(why.c_str());
    return;
  }
  LoadedModule loaded(*module, {}, level);
  const auto kernel = loaded.GetKernel("loop");
  if (!kernel.ok()) std::abort();
  std::array<std::byte, 12> params{};
  const std::uint64_t address = memory.address();
  std::memcpy(params.data(), &address, sizeof(address));
  std::memcpy(params.data() + 8, &mix.turns, sizeof(mix.turns));
  LaunchParams launch;
  launch.grid = {mix.blocks, 1, 1};
  launch.block = {mix.threads, 1, 1};
  launch.params = params;
  WorkerScratch scratch;
  for (auto _ : state) {
    auto run = GridRun::Create(*kernel, launch, &memory, &memory);
    while (!(*run)->finished()) (*run)->Run(&scratch, 100000);
    if ((*run)->fault() != nullptr) std::abort();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(
      mix.lane_instructions * mix.turns * mix.threads * mix.blocks *
      static_cast<double>(state.iterations())));
}

void Arithmetic(benchmark::State& state) {
  Run(state, {R"(mad.lo.u32 %x, %x, %y, %z;
fma.rn.f32 %f0, %f1, %f2, %f0;
xor.b32 %y, %x, %i;
shr.u32 %z, %y, 3;
fma.rn.f32 %f1, %f0, %f2, %f3;
min.s32 %y, %y, %z;
mul.f32 %f3, %f0, %f1;)",
              10});
}
// Loads and stores beside each other, of one and four words.
void Memory(benchmark::State& state) {
  Run(state, {R"(ld.global.u32 %x, [%a];
add.u32 %x, %x, %i;
st.global.u32 [%a], %x;
ld.global.f32 %f0, [%a+4096];
st.global.f32 [%a+8192], %f0;)",
              8});
}
void SharedMemory(benchmark::State& state) {
  Run(state, {R"(ld.shared.u32 %x, [%s];
add.u32 %x, %x, %i;
st.shared.u32 [%s], %x;
ld.shared.f32 %f0, [%s+4096];
st.shared.f32 [%s+8192], %f0;)",
              8});
}
// Even and odd lanes take different ways.
void Divergent(benchmark::State& state) {
  Run(state, {R"(and.b32 %y, %t, 1;
setp.eq.u32 %q, %y, 0;
@%q bra EVEN;
mad.lo.u32 %x, %x, 3, %i;
xor.b32 %x, %x, 85;
add.u32 %x, %x, 7;
bra JOIN;
EVEN:
mad.lo.u32 %x, %x, 5, %i;
xor.b32 %x, %x, 51;
add.u32 %x, %x, 9;
JOIN:
shr.u32 %z, %x, 1;)",
              3 + 3.5 + 1 + 3, 256});
}
// Half of the lanes by a predicate, no branch.
void Predicated(benchmark::State& state) {
  Run(state, {R"(and.b32 %y, %t, 1;
setp.eq.u32 %q, %y, 0;
@%q mad.lo.u32 %x, %x, 3, %i;
@!%q mad.lo.u32 %x, %x, 5, %i;
@%q ld.global.f32 %f0, [%a];
@%q add.f32 %f0, %f0, %f1;
@%q st.global.f32 [%a+4096], %f0;)",
              2 + 2.5 + 3});
}
void AtomicsApart(benchmark::State& state) {
  Run(state, {R"(atom.global.add.u32 %x, [%a], 1;
red.global.add.u32 [%a+4096], %x;
atom.shared.add.u32 %y, [%s], 1;)",
              6});
}
void AtomicsOnOneWord(benchmark::State& state) {
  Run(state, {R"(red.global.add.u32 [%b], 1;
atom.shared.add.u32 %y, [tile], 1;)",
              5});
}
void Double(benchmark::State& state) {
  Run(state, {R"(fma.rn.f64 %g0, %g1, %g2, %g0;
mul.f64 %g3, %g0, %g2;
add.f64 %g1, %g3, %g2;
fma.rn.f64 %g1, %g0, %g2, %g1;
mul.f64 %g0, %g0, %g2;)",
              8});
}
void Half(benchmark::State& state) {
  Run(state, {R"(fma.rn.f16 %h0, %h1, %h2, %h0;
mul.f16 %h3, %h0, %h2;
add.f16 %h1, %h3, %h2;
fma.rn.f16 %h1, %h0, %h2, %h1;
mul.f16 %h0, %h0, %h2;)",
              8});
}
void OneLane(benchmark::State& state) {
  Run(state, {R"(mad.lo.u32 %x, %x, %y, %z;
ld.global.u32 %z, [%a];
xor.b32 %y, %x, %i;
st.global.u32 [%a+4096], %y;
shr.u32 %z, %y, 3;)",
              8, 1});
}
// Shuffles as a reduction has them.
void Shuffles(benchmark::State& state) {
  Run(state, {R"(shfl.sync.bfly.b32 %y, %x, 16, 31, 0xffffffff;
add.u32 %x, %x, %y;
shfl.sync.down.b32 %y, %x, 4, 31, 0xffffffff;
add.u32 %x, %x, %y;)",
              7});
}
// One barrier a turn; eight warps.
void Barriers(benchmark::State& state) {
  Run(state, {"bar.sync 0;", 1, 256, 1, 1024});
}
// Blocks of one warp that end at once: blocks a second.
void ManyBlocks(benchmark::State& state) {
  Run(state, {"", 1.0 / 32, 32, 20000, 1});
}

BENCHMARK(Arithmetic)->DenseRange(0, 2);
BENCHMARK(Memory)->DenseRange(0, 2);
BENCHMARK(SharedMemory)->DenseRange(0, 2);
BENCHMARK(Divergent)->DenseRange(0, 2);
BENCHMARK(Predicated)->DenseRange(0, 2);
BENCHMARK(AtomicsApart)->DenseRange(0, 2);
BENCHMARK(AtomicsOnOneWord)->DenseRange(0, 2);
BENCHMARK(Double)->DenseRange(0, 2);
BENCHMARK(Half)->DenseRange(0, 2);
BENCHMARK(Shuffles)->DenseRange(0, 2);
BENCHMARK(OneLane)->DenseRange(0, 2);
BENCHMARK(Barriers)->DenseRange(0, 2);
BENCHMARK(ManyBlocks)->DenseRange(0, 2);

}  // namespace
}  // namespace pos::ptx
