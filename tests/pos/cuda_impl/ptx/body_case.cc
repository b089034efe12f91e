#include "body_case.h"

#include <gtest/gtest.h>

namespace pos::ptx::testing {

std::string TextOf(const BodyCase& test) {
  return ".version 8.8\n.target sm_90\n.address_size 64\n" + test.module +
         R"(
.visible .entry k(.param .u64 k_in, .param .u64 k_out)
{
.reg .b16 %h<20>;
.reg .b32 %i, %r<40>;
.reg .b64 %in, %out, %d<40>;
.reg .b128 %q<4>;
.reg .pred %p<10>;
ld.param.u64 %in, [k_in];
ld.param.u64 %out, [k_out];
mov.u32 %r0, %ctaid.x;
mov.u32 %r1, %ntid.x;
mov.u32 %i, %tid.x;
mad.lo.s32 %i, %r0, %r1, %i;
mul.wide.u32 %d0, %i, 64;
add.u64 %out, %out, %d0;
)" + test.body +
         "\nret;\n}\n";
}

void CheckBody(const BodyCase& test, IsaLevel level) {
  SCOPED_TRACE(test.opcode + " at " + std::string(IsaLevelName(level)));
  TestModule module(TextOf(test), level);
  const std::size_t threads = std::size_t{test.blocks} * test.threads;
  const std::uint64_t out =
      module.memory().Allocate(threads * kResults * sizeof(std::uint64_t));
  std::vector<std::uint64_t> in = test.in;
  if (in.empty()) in.resize(1);
  const std::uint64_t in_at = module.memory().Upload(in);
  Params params;
  params.Add(in_at).Add(out);
  const LaunchResult result = module.Launch("k", params,
                                            {.grid = {test.blocks, 1, 1},
                                             .block = {test.threads, 1, 1},
                                             .threads = test.workers,
                                             .budget = test.budget});
  ASSERT_EQ(result.fault.has_value(), test.error != 0)
      << (result.fault ? result.fault->text : "no fault") << TextOf(test);
  if (result.fault) {
    ASSERT_EQ(result.fault->error, test.error) << result.fault->text;
    ASSERT_NE(result.fault->text.find(test.error_text), std::string::npos)
        << result.fault->text << " says nothing about " << test.error_text;
  }
  const auto got = TestMemory::Download<std::uint64_t>(out, threads * kResults);
  for (std::size_t i = 0; i < got.size() && test.error == 0; ++i) {
    const std::uint64_t want = i < test.want.size() ? test.want[i] : 0;
    ASSERT_EQ(got[i], want) << std::hex << "0x" << got[i] << " not 0x" << want
                            << std::dec << ": result " << i % kResults
                            << " of thread " << i / kResults << TextOf(test);
  }
  const auto& want_in = test.want_in.empty() ? in : test.want_in;
  const auto after = TestMemory::Download<std::uint64_t>(in_at, in.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    ASSERT_EQ(after[i], want_in[i])
        << std::hex << "0x" << after[i] << " not 0x" << want_in[i] << std::dec
        << ": word " << i << " of the memory" << TextOf(test);
  }
}

void CheckAllLevels(const BodyCase& test) {
  for (const IsaLevel level : RunnableLevels()) {
    CheckBody(test, level);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace pos::ptx::testing
