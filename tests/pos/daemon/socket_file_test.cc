#include "pos/daemon/socket_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/wait.h>

#include <thread>
#include <vector>

#include "tests/pos/daemon/testing.h"

namespace pos {
namespace {

using ::testing::HasSubstr;

class SocketFileTest : public ::testing::Test {
 protected:
  TempDir dir_;
  const std::string path_ = dir_.File("posd.sock");
};

TEST_F(SocketFileTest, ListensWithTheModeAndLeavesNothingBehind) {
  for (const mode_t mode : {0666u, 0600u, 0660u}) {
    auto file = SocketFile::Listen(path_, mode);
    ASSERT_TRUE(file.ok()) << file.status().ToString();
    struct stat st {};
    ASSERT_EQ(::lstat(path_.c_str(), &st), 0);
    EXPECT_TRUE(S_ISSOCK(st.st_mode));
    EXPECT_EQ(st.st_mode & 0777u, mode);
    EXPECT_TRUE(Dial(path_).valid());
  }
  EXPECT_TRUE(ListDirectory(dir_.path())->empty());
}

TEST_F(SocketFileTest, SecondPosdIsToldAndTheFirstGoesOn) {
  auto first = SocketFile::Listen(path_, 0666);
  ASSERT_TRUE(first.ok());
  const auto second = SocketFile::Listen(path_, 0666);
  EXPECT_EQ(second.status().code(), Code::kExists);
  EXPECT_THAT(second.status().message(), HasSubstr(path_));
  EXPECT_THAT(second.status().hint(), HasSubstr("--socket"));
  EXPECT_TRUE(Dial(path_).valid());
}

TEST_F(SocketFileTest, ReplacesWhatADeadPosdLeft) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto file = SocketFile::Listen(path_, 0666);
    ::_exit(file.ok() ? 0 : 1);  // without the destructor
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  ASSERT_TRUE(PathExists(path_));
  const auto file = SocketFile::Listen(path_, 0666);
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_TRUE(Dial(path_).valid());
}

TEST_F(SocketFileTest, TouchesNothingElseAtThePath) {
  ASSERT_TRUE(ReplaceFile(path_, "precious").ok());
  EXPECT_EQ(SocketFile::Listen(path_, 0666).status().code(), Code::kExists);
  EXPECT_EQ(*ReadWholeFile(path_), "precious");
  ASSERT_TRUE(RemoveFile(path_).ok());
  ASSERT_TRUE(MakeDirectories(path_).ok());
  EXPECT_EQ(SocketFile::Listen(path_, 0666).status().code(), Code::kExists);
}

TEST_F(SocketFileTest, RespectsAListenerThatHasNoLock) {
  UniqueFd other(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.c_str(), path_.size());
  ASSERT_EQ(::bind(other.get(), reinterpret_cast<sockaddr*>(&address),
                   sizeof(address)),
            0);
  ASSERT_EQ(::listen(other.get(), 1), 0);
  EXPECT_EQ(SocketFile::Listen(path_, 0666).status().code(), Code::kExists);
  // Full queue: it lives as well.
  std::vector<UniqueFd> fill;
  for (Result<UniqueFd> fd = ConnectToPosd(path_, 0); fd.ok();
       fd = ConnectToPosd(path_, 0)) {
    fill.push_back(std::move(*fd));
  }
  EXPECT_EQ(SocketFile::Listen(path_, 0666).status().code(), Code::kExists);
}

TEST_F(SocketFileTest, KeepsASocketThatTookItsPlace) {
  auto file = SocketFile::Listen(path_, 0666);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(RemoveFile(path_).ok());
  ASSERT_TRUE(ReplaceFile(path_, "new").ok());
  file = Internal("drop it");
  EXPECT_EQ(*ReadWholeFile(path_), "new");
}

TEST_F(SocketFileTest, NamesAPathThatIsTooLong) {
  const std::string longest = dir_.File(std::string(107, 'a')).substr(0, 107);
  EXPECT_TRUE(SocketFile::Listen(longest, 0666).ok());
  EXPECT_EQ(SocketFile::Listen(longest + "b", 0666).status().code(),
            Code::kInvalid);
  EXPECT_EQ(SocketFile::Listen(dir_.File("no/such"), 0666).status().code(),
            Code::kNoSuch);
}

// However many start at once on a dead posd's file, one gets it.
TEST_F(SocketFileTest, OneOfManyThatStartAtOnceGetsIt) {
  for (int round = 0; round < 20; ++round) {
    std::vector<pid_t> children;
    std::array<int, 2> gate{};
    ASSERT_EQ(::pipe2(gate.data(), O_CLOEXEC), 0);
    std::array<int, 2> hold{};
    ASSERT_EQ(::pipe2(hold.data(), O_CLOEXEC), 0);
    for (int i = 0; i < 6; ++i) {
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        ::close(gate[1]);
        ::close(hold[1]);
        char byte = 0;
        static_cast<void>(!::read(gate[0], &byte, 1));  // all start together
        auto file = SocketFile::Listen(path_, 0666);
        if (!file.ok()) {
          ::_exit(file.status().code() == Code::kExists ? 2 : 1);
        }
        // Hold it until everybody has tried.
        static_cast<void>(!::read(hold[0], &byte, 1));
        ::_exit(0);
      }
      children.push_back(child);
    }
    ::close(gate[0]);
    ::close(hold[0]);
    ::close(gate[1]);
    int winners = 0;
    int losers = 0;
    for (std::size_t i = 0; i + 1 < children.size(); ++i) {
      int status = 0;
      ASSERT_GT(::wait(&status), 0);
      losers += WIFEXITED(status) && WEXITSTATUS(status) == 2 ? 1 : 0;
    }
    ::close(hold[1]);
    int status = 0;
    ASSERT_GT(::wait(&status), 0);
    winners += WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 1 : 0;
    EXPECT_EQ(winners, 1);
    EXPECT_EQ(losers, 5);
  }
}

TEST(DefaultSocketPath, FollowsUserAndEnvironment) {
  if (::geteuid() == 0) {
    EXPECT_EQ(DefaultSocketPath(), "/run/pos/posd.sock");
    return;
  }
  ::setenv("XDG_RUNTIME_DIR", "/run/user/4", 1);
  EXPECT_EQ(DefaultSocketPath(), "/run/user/4/pos/posd.sock");
  ::unsetenv("XDG_RUNTIME_DIR");
  EXPECT_EQ(DefaultSocketPath(),
            "/run/user/" + std::to_string(::getuid()) + "/pos/posd.sock");
}

}  // namespace
}  // namespace pos
