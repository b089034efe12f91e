#include "pos/graph/recipe.h"

#include <gtest/gtest.h>

#include <cstring>

namespace pos {
namespace {

const CallInfo kCreate{.op = 1, .name = "Create", .args_bytes = 8};
const CallInfo kSet{.op = 2, .name = "Set", .args_bytes = 8};

ApiContext Call(const CallInfo& info, std::uint64_t args,
                std::string_view payload = "") {
  ApiContext context;
  context.info = &info;
  const std::span<std::byte> frame =
      context.FrameBuffer(static_cast<std::uint32_t>(sizeof(wire::FrameHeader) +
                                                     8 + payload.size()));
  std::memcpy(frame.data() + sizeof(wire::FrameHeader), &args, 8);
  std::memcpy(frame.data() + sizeof(wire::FrameHeader) + 8, payload.data(),
              payload.size());
  context.inline_bytes = static_cast<std::uint32_t>(payload.size());
  return context;
}

std::uint64_t ArgsOf(const RecipeStep& step) {
  std::uint64_t args = 0;
  std::memcpy(&args, step.args.data(), 8);
  return args;
}

TEST(Recipe, LastSetterOfAPropertyWinsAndCreationStaysFirst) {
  Recipe recipe;
  recipe.Record(Call(kCreate, 7, "name"), 0, {});
  for (std::uint64_t i = 0; i < 100000; ++i) {
    recipe.Record(Call(kSet, i), i % 3, {});
  }
  ASSERT_EQ(recipe.steps().size(), 4u) << "bounded by properties, not by calls";
  EXPECT_EQ(recipe.steps()[0].op, 1);
  EXPECT_EQ(ArgsOf(recipe.steps()[0]), 7u);
  EXPECT_EQ(recipe.steps()[0].inline_data.size(), 4u);
  EXPECT_EQ(ArgsOf(recipe.steps()[1]), 99999u);
  EXPECT_EQ(ArgsOf(recipe.steps()[2]), 99997u);
  EXPECT_EQ(ArgsOf(recipe.steps()[3]), 99998u);
}

TEST(Recipe, SurvivesWritingAndReading) {
  Recipe recipe;
  const std::uint64_t values[] = {1, 2, ~0ull};
  recipe.Record(Call(kCreate, 7, "some name"), 0, values);
  recipe.Record(Call(kSet, 8), 5, {});
  ByteWriter out;
  recipe.Write(&out);
  ByteReader in(out.bytes());
  const Result<Recipe> read = Recipe::Read(&in);
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->steps().size(), 2u);
  EXPECT_EQ(read->steps()[0].values, std::vector<std::uint64_t>({1, 2, ~0ull}));
  EXPECT_EQ(read->steps()[0].inline_data, recipe.steps()[0].inline_data);
  EXPECT_EQ(read->steps()[1].key, 5u);
  EXPECT_EQ(read->steps()[1].args, recipe.steps()[1].args);
  for (std::size_t keep = 0; keep < out.bytes().size(); ++keep) {
    ByteReader cut(out.bytes().first(keep));
    EXPECT_FALSE(Recipe::Read(&cut).ok()) << keep;
  }
}

TEST(Recipe, ReadingHostileCountsEndsWithTheBytes) {
  ByteWriter out;
  out.Put<std::uint32_t>(~0u);
  ByteReader in(out.bytes());
  EXPECT_EQ(Recipe::Read(&in).status().code(), Code::kCorrupt);
  ByteWriter ragged;
  ragged.Put<std::uint32_t>(1);
  ragged.Put<std::uint16_t>(1);
  ragged.Put<std::uint64_t>(0);
  ragged.PutBytes({});
  ragged.PutBytes({});
  ragged.PutString("12345");  // values that are not whole words
  ByteReader ragged_in(ragged.bytes());
  EXPECT_EQ(Recipe::Read(&ragged_in).status().code(), Code::kCorrupt);
}

}  // namespace
}  // namespace pos
