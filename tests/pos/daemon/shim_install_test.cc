// The client library's files, also after a posd that was cut off.
#include "pos/daemon/shim_install.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "pos/base/files.h"

namespace pos {
namespace {

class ShimInstallTest : public ::testing::Test {
 protected:
  ShimInstallTest() : top_(::testing::TempDir() + "/pos-shim-XXXXXX") {
    EXPECT_NE(::mkdtemp(top_.data()), nullptr);
    EXPECT_TRUE(ReplaceFile(Source(), "a library", 0644).ok());
  }
  ~ShimInstallTest() override { EXPECT_TRUE(RemoveTree(top_).ok()); }

  [[nodiscard]] std::string Source() const { return JoinPath(top_, "built"); }
  [[nodiscard]] std::string Directory() const {
    return JoinPath(top_, "shim/id");
  }
  void ExpectWhole() const {
    for (const char* name : {"libcuda.so.1", "libcuda.so"}) {
      const auto text = ReadWholeFile(JoinPath(Directory(), name));
      ASSERT_TRUE(text.ok()) << name << ": " << text.status().ToString();
      EXPECT_EQ(*text, "a library") << name;
    }
  }

  std::string top_;
};

TEST_F(ShimInstallTest, MakesTheLibraryAndItsPlainName) {
  ASSERT_TRUE(InstallShimFiles(Source(), Directory()).ok());
  ExpectWhole();
}

TEST_F(ShimInstallTest, WhatACutOffInstallLeftOutIsAdded) {
  ASSERT_TRUE(InstallShimFiles(Source(), Directory()).ok());
  for (const char* name : {"libcuda.so", "libcuda.so.1"}) {
    ASSERT_TRUE(RemoveFile(JoinPath(Directory(), name)).ok());
    ASSERT_TRUE(InstallShimFiles(Source(), Directory()).ok());
    ExpectWhole();
  }
}

// CRIU wants the file that an image's processes have mapped.
TEST_F(ShimInstallTest, ALibraryThatIsThereStays) {
  ASSERT_TRUE(InstallShimFiles(Source(), Directory()).ok());
  ASSERT_TRUE(ReplaceFile(Source(), "another", 0644).ok());
  ASSERT_TRUE(InstallShimFiles(Source(), Directory()).ok());
  ExpectWhole();
}

}  // namespace
}  // namespace pos
