#include "pos/cuda_impl/parser/session_state.h"

#include <gtest/gtest.h>

#include <memory>

namespace pos::cuda {
namespace {

// What code images take is bounded: no device grants it.
TEST(CodeMemory, HoldsCodeUpToALimit) {
  CodeMemory code(1000);
  EXPECT_EQ(code.NewBlob(1001), nullptr);
  EXPECT_EQ(code.NewBlob(~std::uint64_t{0}), nullptr);
  std::shared_ptr<Blob> first = code.NewBlob(600);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->bytes.size(), 600u);
  EXPECT_EQ(code.NewBlob(401), nullptr);
  const std::shared_ptr<Blob> second = code.NewBlob(400);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(code.NewBlob(1), nullptr);
  first.reset();
  EXPECT_NE(code.NewBlob(600), nullptr);
}

}  // namespace
}  // namespace pos::cuda
