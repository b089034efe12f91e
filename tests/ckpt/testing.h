// What the tests of ckpt/ share: files that vanish, data, damage.
#ifndef TESTS_CKPT_TESTING_H_
#define TESTS_CKPT_TESTING_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/files.h"

namespace pos::ckpt {

using Bytes = std::vector<std::byte>;

// An unnamed file in memory.
inline UniqueFd MemFile() {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_TRUE(fd.valid());
  return fd;
}

inline Bytes ContentOf(int fd) {
  struct stat st {};
  EXPECT_EQ(::fstat(fd, &st), 0);
  Bytes content(static_cast<std::size_t>(st.st_size));
  EXPECT_TRUE(PreadFull(fd, content, 0, "test").ok());
  return content;
}

// Bytes that do not compress, the same for the same seed.
inline Bytes Noise(std::size_t size, std::uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  Bytes data(size);
  for (std::size_t i = 0; i < size; i += 8) {
    const std::uint64_t word = random();
    std::memcpy(data.data() + i, &word, std::min<std::size_t>(8, size - i));
  }
  return data;
}

// Bytes that compress to about a quarter.
inline Bytes Compressible(std::size_t size, std::uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  Bytes data(size);
  for (std::size_t i = 0; i < size; ++i) {
    data[i] = static_cast<std::byte>(i % 16 < 4 ? random() & 15 : 0x40);
  }
  return data;
}

// A directory that is removed with its content. `parent` empty: the tests'
// usual place.
class TestDir {
 public:
  explicit TestDir(const std::string& name, const std::string& parent = "") {
    path_ = (parent.empty() ? ::testing::TempDir() : parent + "/") + name +
            std::to_string(::getpid());
    EXPECT_TRUE(RemoveTree(path_).ok());
    EXPECT_TRUE(MakeDirectories(path_).ok());
  }
  ~TestDir() { EXPECT_TRUE(RemoveTree(path_).ok()); }
  TestDir(const TestDir&) = delete;
  TestDir& operator=(const TestDir&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const {
    return path_ + "/" + name;
  }

 private:
  std::string path_;
};

}  // namespace pos::ckpt

#endif  // TESTS_CKPT_TESTING_H_
