#include "pos/cuda_impl/fatbin/image_length.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "pos/base/files.h"

namespace pos::fatbin {
namespace {

std::string Data(const std::string& name) {
  auto file = ReadWholeFile(std::string(POS_TEST_DATA) + "/" + name);
  EXPECT_TRUE(file.ok()) << name;
  return file.ok() ? *file : std::string();
}

struct Wrapper {
  std::uint32_t magic = kWrapperMagic;
  std::uint32_t version = 1;
  const void* data = nullptr;
  const void* second = nullptr;
};

TEST(ImageBytes, IsTheFileSizeOfWhatNvccWrites) {
  for (const char* name :
       {"zstd.fatbin", "lz4.fatbin", "plain.fatbin", "arch_specific.fatbin",
        "several.fatbin", "newer.fatbin", "relocatable.fatbin", "lto.fatbin",
        "sm90.cubin", "sm75.cubin", "sm90_rdc.cubin"}) {
    SCOPED_TRACE(name);
    const std::string image = Data(name);
    // What follows in memory must not be counted.
    const std::string longer = image + std::string(64, '\x7f');
    EXPECT_EQ(ImageBytes(longer.data()), image.size());
  }
}

TEST(ImageBytes, OfTextCountsItsNul) {
  for (const std::string text :
       {"", "a", "//", ".version 9.0\n.target sm_90"}) {
    EXPECT_EQ(KindOf(text.c_str()), ImageKind::kPtx);
    EXPECT_EQ(ImageBytes(text.c_str()), text.size() + 1);
  }
}

TEST(ImageBytes, OfAnUnknownFatbinVersionIsZero) {
  std::string image = Data("zstd.fatbin");
  image[4] = 2;
  EXPECT_EQ(ImageBytes(image.data()), 0u);
}

TEST(ImageBytes, DoesNotWrapAround) {
  std::string image = Data("zstd.fatbin");
  std::memset(image.data() + 8, 0xff, 8);
  EXPECT_EQ(ImageBytes(image.data()), 0u);
  std::string elf = Data("sm90.cubin");
  std::memset(elf.data() + 40, 0xff, 8);
  EXPECT_EQ(ImageBytes(elf.data()), 0u);
}

TEST(Unwrap, GivesWhatAVersion1WrapperPointsAt) {
  const std::string image = Data("zstd.fatbin");
  Wrapper wrapper;
  wrapper.data = image.data();
  // Only version 2 reads the second pointer.
  wrapper.second = &wrapper;
  std::array<ImageSpan, 4> spans;
  ASSERT_EQ(Unwrap(&wrapper, spans), 1u);
  EXPECT_EQ(spans[0].data, image.data());
  EXPECT_EQ(spans[0].bytes, image.size());
  EXPECT_EQ(ImageBytes(&wrapper), 0u);
}

TEST(Unwrap, GivesLinkedThenUnlinkedFatbinsOfVersion2) {
  const std::string linked = Data("plain.fatbin");
  const std::string a = Data("zstd.fatbin");
  const std::string b = Data("lz4.fatbin");
  const std::array<const void*, 3> before{a.data(), b.data(), nullptr};
  Wrapper wrapper;
  wrapper.version = 2;
  wrapper.data = linked.data();
  wrapper.second = before.data();
  std::array<ImageSpan, 3> spans;
  ASSERT_EQ(Unwrap(&wrapper, spans), 3u);
  EXPECT_EQ(spans[0].bytes, linked.size());
  EXPECT_EQ(spans[1].data, a.data());
  EXPECT_EQ(spans[2].bytes, b.size());
  // The count is whole even where `out` is short.
  EXPECT_EQ(Unwrap(&wrapper, std::span(spans).first(1)), 3u);
  wrapper.second = nullptr;
  EXPECT_EQ(Unwrap(&wrapper, spans), 1u);
}

TEST(Unwrap, RefusesOtherVersionsAndNoData) {
  Wrapper wrapper;
  EXPECT_EQ(Unwrap(&wrapper, {}), 0u);
  wrapper.data = &wrapper;
  wrapper.version = 3;
  EXPECT_EQ(Unwrap(&wrapper, {}), 0u);
}

TEST(Unwrap, GivesABareImageItself) {
  const std::string elf = Data("sm90.cubin");
  std::array<ImageSpan, 1> spans;
  ASSERT_EQ(Unwrap(elf.data(), spans), 1u);
  EXPECT_EQ(spans[0].data, elf.data());
  EXPECT_EQ(spans[0].bytes, elf.size());
}

}  // namespace
}  // namespace pos::fatbin
