// What a module says about itself, and what happens to text that is no PTX or
// that asks for more than is implemented.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <string>
#include <string_view>

#include "harness.h"

namespace pos::ptx::testing {
namespace {

using ::testing::HasSubstr;

constexpr const char* kHead =
    ".version 8.5\n.target sm_90a, texmode_independent\n.address_size 64\n";

std::shared_ptr<const Module> Parsed(const std::string& text) {
  auto module = Module::Parse(kHead + text);
  EXPECT_TRUE(module.ok()) << module.status().ToString();
  return module.ok() ? *module : nullptr;
}
std::string ErrorOf(const std::string& text) {
  auto module = Module::Parse(kHead + text);
  EXPECT_FALSE(module.ok()) << text;
  return module.ok() ? "" : module.status().message();
}

TEST(PtxModule, HeadAndEntries) {
  const auto module = Parsed(R"(
.visible .entry first(.param .u64 a, .param .u8 b, .param .align 16 .b8 c[40],
                      .param .f32 d)
.maxntid 128, 2, 1
.minnctapersm 3
{
.shared .align 8 .b8 room[100];
.local .align 16 .b8 depot[48];
.reg .b64 %d;
mov.u64 %d, room;
mov.u64 %d, depot;
ret;
}
.entry second() .reqntid 32, 4, 2 { ret; }
)");
  ASSERT_NE(module, nullptr);
  EXPECT_EQ(module->isa_major(), 8);
  EXPECT_EQ(module->isa_minor(), 5);
  EXPECT_EQ(module->target_sm(), 90);
  ASSERT_EQ(module->entries().size(), 2u);
  const Entry& first = *module->FindEntry("first");
  ASSERT_EQ(first.params.size(), 4u);
  EXPECT_EQ(first.params[1].offset, 8u);
  EXPECT_EQ(first.params[2].offset, 16u);
  EXPECT_EQ(first.params[2].size, 40u);
  EXPECT_EQ(first.params[3].offset, 56u);
  EXPECT_EQ(first.params_bytes, 60u);
  EXPECT_EQ(first.static_shared_bytes, 100u);
  EXPECT_EQ(first.local_bytes, 48u);
  EXPECT_EQ(first.max_threads_per_block, 256u);
  EXPECT_EQ(first.min_blocks_per_sm, 3u);
  EXPECT_TRUE(first.unsupported.empty()) << first.unsupported;
  const Entry& second = *module->FindEntry("second");
  EXPECT_EQ(second.required_block[1], 4u);
  EXPECT_EQ(second.max_threads_per_block, 256u);
  EXPECT_EQ(module->FindEntry("third"), nullptr);
}

TEST(PtxModule, VariablesWithInitialValuesAndAddresses) {
  TestModule module(std::string(kHead) + R"(
.func f() { ret; }
.visible .global .align 4 .b32 numbers[6] = {1, -2, 0x10, 0f3F800000};
.const .align 8 .f64 half = 0d3FE0000000000000;
.global .align 8 .u64 pointers[3] = {numbers, generic(numbers)+8, f};
.global .b8 text[4] = {104, 105, 33, 0};
.extern .global .u32 elsewhere;
)");
  const auto numbers =
      TestMemory::Download<std::uint32_t>(module.AddressOf("numbers"), 6);
  EXPECT_THAT(numbers, ::testing::ElementsAre(1u, 0xfffffffeu, 16u, 0x3f800000u,
                                              0u, 0u));
  EXPECT_EQ(TestMemory::Download<double>(module.AddressOf("half"), 1)[0], 0.5);
  const auto pointers =
      TestMemory::Download<std::uint64_t>(module.AddressOf("pointers"), 3);
  EXPECT_EQ(pointers[0], module.AddressOf("numbers"));
  EXPECT_EQ(pointers[1], module.AddressOf("numbers") + 8);
  EXPECT_NE(pointers[2], 0u);
}

// The module loads, its other kernels run; the one that cannot says why, by
// the name of what is missing, and so does every kernel that may call it.
TEST(PtxModule, AnUnsupportedInstructionFailsItsKernelsOnly) {
  TestModule module(std::string(kHead) + R"(
.func helper() {
.reg .b32 %r<4>;
wgmma.fence.sync.aligned;
ret;
}
.visible .entry good(.param .u64 p) {
.reg .b64 %d; .reg .b32 %r;
ld.param.u64 %d, [p];
mov.u32 %r, 7;
st.global.u32 [%d], %r;
ret;
}
.visible .entry bad(.param .u64 p) {
.reg .b32 %r<4>;
frobnicate.sync.u32 %r1, %r2;
ret;
}
.visible .entry calls() { call helper; ret; }
)");
  const auto out = module.memory().Allocate(4);
  Params params;
  params.Add(out);
  EXPECT_FALSE(module.Launch("good", params).fault.has_value());
  EXPECT_EQ(TestMemory::Download<int>(out, 1)[0], 7);
  const auto bad = module.loaded().GetKernel("bad");
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().code(), Code::kIncompatible);
  EXPECT_THAT(bad.status().message(),
              ::testing::AllOf(HasSubstr("frobnicate.sync.u32"),
                               HasSubstr("line 19"), HasSubstr("in bad")));
  const auto calls = module.loaded().GetKernel("calls");
  ASSERT_FALSE(calls.ok());
  EXPECT_THAT(calls.status().message(), HasSubstr("wgmma.fence.sync.aligned"));
  EXPECT_FALSE(module.loaded().GetKernel("nobody").ok());
  // The same answer again.
  EXPECT_EQ(module.loaded().GetKernel("bad").status().message(),
            bad.status().message());
}

// Operands that do not fit an instruction that exists.
TEST(PtxModule, WrongOperandsFailTheKernelWithTheirLine) {
  for (const char* wrong :
       {"add.u32 %r1, %d1, %r2;", "add.u32 %r1, %r2;",
        "add.u32 %r1, %r2, %r3, %r1;", "mov.u32 %r1, nowhere;",
        "ld.global.u32 %r1, %d1;", "st.global.v2.u32 [%d1], {%r1};",
        "setp.eq.u32 %r1, %r2, %r3;", "bra %r1;", "call nowhere;",
        "cvta.to.global.u64 %r1, %d1;", "shfl.sync.idx.b32 %r1, %r2, 0;",
        "atom.global.add.u32 %r1, [%d1];", "add.f32 %r1, !%p1, %r2;",
        // Selectors and signs are for video instructions, and not all for all.
        "add.u32 %r1, %r2.b0, %r3;", "add.s32 %r1, -%r2, %r3;",
        "st.global.u32 [%d1.h0], %r1;", "vadd.u32.u32.u32 %r1, %r2, %r3, %r1;",
        "vadd.u32.u32.u32 %r1.b0, %r2, %r3;",
        "vadd.u32.u32.u32 %r1, -%r2, %r3;",
        "vadd.u32.u32.u32.add %r1.b0, %r2, %r3, %r1;",
        "vadd.u32.u32.u32 %r1, %r2.b4, %r3;",
        "vadd.u32.u32.u32 %r1, %r2.b10, %r3;",
        "vadd4.u32.u32.u32 %r1, %r2.h10, %r3, %r1;",
        "vadd4.u32.u32.u32 %r1, %r2.b321, %r3, %r1;",
        "vadd2.u32.u32.u32 %r1, %r2.h74, %r3, %r1;",
        "vadd4.u32.u32.u32 %r1, %r2, %r3;",
        "vmad.s32.u32.u32.po %r1, -%r2, %r3, %r1;",
        "vmad.s32.u32.u32 %r1, -%r2, %r3, -%r1;",
        "vmad.s32.u32.u32 %r1.b0, %r2, %r3, %r1;"}) {
    auto module = Module::Parse(
        std::string(kHead) +
        ".visible .entry k() {\n.reg .b32 %r<4>;\n.reg .b64 %d<4>;\n"
        ".reg .pred %p<4>;\n" +
        wrong + "\nret;\n}\n");
    if (!module.ok()) continue;  // refused even earlier
    LoadedModule loaded(*module, {});
    const auto kernel = loaded.GetKernel("k");
    ASSERT_FALSE(kernel.ok()) << wrong;
    EXPECT_EQ(kernel.status().code(), Code::kIncompatible) << wrong;
  }
}

TEST(PtxModule, ErrorsNameTheLine) {
  EXPECT_THAT(ErrorOf(".entry k() {\nret;\n"), HasSubstr("line"));
  EXPECT_THAT(ErrorOf(".entry k() {\n.reg .b32 %r<2>\nret;\n}\n"),
              HasSubstr("line 6"));
  EXPECT_THAT(ErrorOf("\n\n.global .u32 x = ;\n"), HasSubstr("line 6"));
  EXPECT_THAT(ErrorOf(".global .u32 x[2] = {1, 2, 3};\n"), HasSubstr("line 4"));
  EXPECT_THAT(ErrorOf("/* never ends\n"), HasSubstr("line"));
  EXPECT_THAT(ErrorOf(".entry k() { bra NOWHERE; }\n"), HasSubstr("NOWHERE"));
}

TEST(PtxModule, TextThatIsNoPtx) {
  for (const char* text : {"", "hello", ".version 8.0",
                           "\x7f"
                           "ELF",
                           ".version 8.0\n.target sm_90\n.address_size 31\n"}) {
    EXPECT_FALSE(Module::Parse(text).ok()) << text;
  }
  // What a fatbin gives ends in zeros.
  const std::string zeros(5, '\0');
  EXPECT_TRUE(Module::Parse(kHead + zeros).ok());
}

// Limits: sizes and depths that no real program has are refused, quickly.
TEST(PtxModule, HostileSizesAreRefused) {
  std::string nested = ".entry k() {";
  for (int i = 0; i < 100000; ++i) nested += '{';
  EXPECT_FALSE(Module::Parse(kHead + nested).ok());
  std::string expression = ".global .u32 x = ";
  for (int i = 0; i < 100000; ++i) expression += '(';
  EXPECT_FALSE(Module::Parse(kHead + expression).ok());
  for (const char* text :
       {".global .b8 x[0xffffffffffffffff];",
        ".global .b64 x[0x2000000000000000];",
        ".global .b8 x[1000000][1000000][1000000][1000000];",
        ".entry k() { .reg .b32 %r<4294967295>; }",
        ".entry k() { .local .b8 x[0xffffffffffff]; }",
        ".entry k(.param .b8 x[70000]) { ret; }", ".global .align 3 .b8 x;"}) {
    EXPECT_FALSE(Module::Parse(std::string(kHead) + text).ok()) << text;
  }
}

// Blocks open scopes: names repeat without meaning the same.
TEST(PtxModule, BlocksHaveNamesOfTheirOwn) {
  TestModule module(std::string(kHead) + R"(
.visible .entry k(.param .u64 p) {
.reg .b64 %d; .reg .b32 %r;
ld.param.u64 %d, [p];
mov.u32 %r, 1;
{
.reg .b32 %r;
mov.u32 %r, 50;
{
.reg .b32 %r;
mov.u32 %r, 700;
bra L;
L: st.global.u32 [%d], %r;
}
bra L;
L: st.global.u32 [%d+4], %r;
}
st.global.u32 [%d+-4+12], %r;
ret;
}
)");
  const auto out = module.memory().Allocate(12);
  Params params;
  params.Add(out);
  EXPECT_FALSE(module.Launch("k", params).fault.has_value());
  EXPECT_THAT(TestMemory::Download<int>(out, 3),
              ::testing::ElementsAre(700, 50, 1));
}

// What -rdc=true makes: names that are shared, names of their own in each text,
// and what several texts define alike.
constexpr const char* kOneText = R"(
.extern .func (.param .b32 r) twist (.param .b32 x);
.extern .global .u32 calls;
.global .u32 own = 5;
.func (.param .b32 r) helper () {
  .reg .b32 %r<2>;
  ld.global.u32 %r1, [own];
  st.param.b32 [r], %r1;
  ret;
}
.weak .func (.param .b32 r) both () { st.param.b32 [r], 100; ret; }
.weak .global .align 8 .u64 table[2] = {helper, 7};
.visible .entry run(.param .u64 out) {
  .reg .b32 %r<9>;
  .reg .b64 %d<3>;
  .param .b32 a, b, c, d;
  call (a), helper, ();
  ld.param.b32 %r1, [a];
  st.param.b32 [b], %r1;
  call (c), twist, (b);
  ld.param.b32 %r2, [c];
  call (d), both, ();
  ld.param.b32 %r3, [d];
  ld.global.u32 %r4, [calls];
  ld.global.u32 %r5, [table+8];
  ld.param.u64 %d1, [out];
  st.global.v4.b32 [%d1], {%r2, %r3, %r4, %r5};
  ret;
})";
constexpr const char* kOtherText = R"(
.visible .global .u32 calls = 40;
.global .u32 own = 3;
.func (.param .b32 r) helper () {
  .reg .b32 %r<2>;
  ld.global.u32 %r1, [own];
  st.param.b32 [r], %r1;
  ret;
}
.weak .func (.param .b32 r) both () { st.param.b32 [r], 200; ret; }
.weak .global .align 8 .u64 table[2] = {helper, 8};
.visible .func (.param .b32 r) twist (.param .b32 x) {
  .reg .b32 %r<5>;
  .param .b32 mine;
  call (mine), helper, ();
  ld.param.b32 %r1, [mine];
  ld.param.b32 %r2, [x];
  mad.lo.u32 %r3, %r2, 10, %r1;
  atom.global.add.u32 %r4, [calls], 2;
  st.param.b32 [r], %r3;
  ret;
})";

TEST(PtxModule, TextsAreLinkedByTheirSharedNames) {
  const std::string one = std::string(kHead) + kOneText;
  const std::string other = std::string(kHead) + kOtherText;
  // The order decides nothing but whose .weak definition counts.
  for (const bool swapped : {false, true}) {
    SCOPED_TRACE(swapped);
    const std::string_view texts[] = {swapped ? other : one,
                                      swapped ? one : other};
    TestModule module{std::span<const std::string_view>(texts)};
    EXPECT_EQ(module.module().variables().size(), 4u);
    const std::uint64_t out = module.memory().Allocate(16);
    const LaunchResult result =
        module.Launch("run", Params().Add(out), {.block = {1, 1, 1}});
    ASSERT_TRUE(result.finished);
    EXPECT_THAT(TestMemory::Download<std::uint32_t>(out, 4),
                ::testing::ElementsAre(53u, swapped ? 200u : 100u, 42u,
                                       swapped ? 8u : 7u));
  }
}

TEST(PtxModule, TextsThatDoNotFitTogether) {
  const std::string one = std::string(kHead) + ".visible .func f() { ret; }";
  const std::string_view twice[] = {one, one};
  EXPECT_THAT(Module::Link(twice).status().message(),
              HasSubstr("defined twice: f"));
  // Alone, a kernel whose callee is missing says so.
  const auto module = Parsed(kOneText);
  ASSERT_NE(module, nullptr);
  EXPECT_THAT(module->FindEntry("run")->unsupported, HasSubstr("twist"));
}

TEST(PtxModule, LaunchesThatAKernelDoesNotAllow) {
  TestModule module(std::string(kHead) +
                    ".visible .entry k(.param .u64 p) .maxntid 64 { ret; }\n"
                    ".visible .entry exact() .reqntid 32 { ret; }\n");
  const auto create = [&module](const char* name, LaunchParams launch) {
    const auto kernel = module.loaded().GetKernel(name);
    return GridRun::Create(*kernel, launch, &module.memory(), &module.memory())
        .ok();
  };
  const std::vector<std::byte> params(8);
  LaunchParams good;
  good.params = params;
  good.block = {64, 1, 1};
  EXPECT_TRUE(create("k", good));
  for (const auto& change : std::vector<void (*)(LaunchParams*)>{
           [](LaunchParams* l) {
             l->block = {65, 1, 1};
           },
           [](LaunchParams* l) {
             l->block = {0, 1, 1};
           },
           [](LaunchParams* l) {
             l->block = {8, 8, 2};
           },
           [](LaunchParams* l) {
             l->grid = {0, 1, 1};
           },
           [](LaunchParams* l) {
             l->grid = {1, 65536, 1};
           },
           [](LaunchParams* l) {
             l->grid = {0x80000000, 1, 1};
           },
           [](LaunchParams* l) { l->params = l->params.first(7); },
           [](LaunchParams* l) { l->dynamic_shared_bytes = 2u << 20; }}) {
    LaunchParams launch = good;
    change(&launch);
    EXPECT_FALSE(create("k", launch));
  }
  LaunchParams exact;
  exact.block = {32, 1, 1};
  EXPECT_TRUE(create("exact", exact));
  exact.block = {16, 1, 1};
  EXPECT_FALSE(create("exact", exact));
}

}  // namespace
}  // namespace pos::ptx::testing
