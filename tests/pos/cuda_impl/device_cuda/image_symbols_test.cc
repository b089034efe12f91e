#include "pos/cuda_impl/device_cuda/image_symbols.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <span>

namespace pos::cuda_device {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Names(const std::vector<ImageVariable>& variables) {
  std::vector<std::string> names;
  for (const ImageVariable& v : variables) {
    names.push_back(v.name + (v.constant ? " const" : "") +
                    (v.managed ? " managed" : ""));
  }
  return names;
}

TEST(PtxVariables, FindsDefinitionsOfModuleScope) {
  EXPECT_THAT(Names(PtxVariables(R"(
.version 8.0 // .global .u32 no;
.target sm_75
/* .global .u32 neither; */
.visible .global .align 4 .u32 counter = 7;
.visible .global .align 16 .b8 zeros[128];
.const .align 4 .f32 table[2] = {0f00000000, 0f3F800000};
.global .attribute(.managed) .align 4 .u32 both;
.global .u64 link = generic(zeros)+4, other[2];
.extern .global .u32 elsewhere;
.extern .shared .align 16 .b8 buffer[];
.func (.param .b32 r) helper(.param .b32 x) { .local .u32 inside; ret; }
.visible .entry kernel(.param .u64 p) {
  .shared .u32 s; .reg .u32 %r<2>; ld.global.u32 %r1, [counter]; ret; }
.visible .global .u32 last;
.section .debug_str { info_string: .b8 .global; }
)")),
              ElementsAre("counter", "zeros", "table const", "both managed",
                          "link", "other", "last"));
}

TEST(PtxVariables, SurvivesAnything) {
  for (const char* text : {"", ";", "{", "}", ".global", ".global ;", "/*",
                           ".global .u32 \"", ".const = ;", "((((", "//"}) {
    PtxVariables(text);
  }
  EXPECT_THAT(PtxVariables(".global .u32 [4];"), IsEmpty());
}

TEST(NamesHeap, ByWholeNames) {
  EXPECT_TRUE(NamesHeap("call.uni (r), malloc, (b);", true));
  EXPECT_TRUE(NamesHeap("call free,(b);", true));
  EXPECT_FALSE(NamesHeap("call my_malloc, (b); freely: free$", true));
  EXPECT_TRUE(NamesHeap(std::string_view("a\0malloc\0b", 10), false));
  EXPECT_FALSE(
      NamesHeap(std::string_view("a\0xmalloc\0malloc2\0b", 19), false));
  EXPECT_FALSE(NamesHeap("", true));
}

TEST(CubinVariables, FindsObjectsOfACubin) {
  std::ifstream in(POS_FATBIN_DATA "/sm90.cubin", std::ios::binary);
  std::string elf(std::istreambuf_iterator<char>(in), {});
  ASSERT_FALSE(elf.empty());
  const std::vector<std::string> names = Names(CubinVariables(elf));
  EXPECT_FALSE(names.empty());
  // Cut anywhere and flipped anywhere: no fault.
  for (std::size_t n = 0; n < elf.size(); n += 37) {
    CubinVariables(elf.substr(0, n));
    std::string bad = elf;
    bad[n] = static_cast<char>(~bad[n]);
    CubinVariables(bad);
  }
}

}  // namespace
}  // namespace pos::cuda_device
