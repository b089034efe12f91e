// Every launch of the tests that are linked with this (kernels as compilers
// make them, and hand-written ones) does what the analysis says of it.
#include <gtest/gtest.h>

#include <cstdio>

#include "checked_launch.h"

namespace pos::access::testing {
namespace {

class Checks final : public ::testing::Environment {
 public:
  void SetUp() override { CheckAllLaunches(); }
  void TearDown() override {
    std::printf("%d launches are proven, %d are not\n", Counts().proven,
                Counts().other);
    // Nothing checked is nothing shown.
    EXPECT_GT(Counts().proven, Counts().other);
  }
};

const auto* const kChecks =
    ::testing::AddGlobalTestEnvironment(new Checks);  // GoogleTest owns it

}  // namespace
}  // namespace pos::access::testing
