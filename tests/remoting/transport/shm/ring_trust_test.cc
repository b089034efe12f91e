// What a hostile or dying client can do to the server's end of the ring.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <vector>

#include "tests/support/ring_pair.h"

namespace pos {
namespace {

wire::RingHeader* Header(RingClient* client) {
  // The header lies at the start of the mapping; slot 0 follows on its page.
  return reinterpret_cast<wire::RingHeader*>(
      reinterpret_cast<std::byte*>(&client->slot(0)) - 4096);
}

// What a commit word may hold: a multiple of the frame unit, at least a header,
// at most the largest frame. 0 means "nothing yet".
TEST(RingTrust, ImpossibleSizesAreCorruptAndTheOthersAreNot) {
  for (std::uint64_t size = 0; size < 2 * wire::kMaxFrameBytes; ++size) {
    static RingPair ring;
    // Nothing was taken from this ring, so the first frame is at its start.
    static std::byte* const first = [] {
      wire::FrameHeader* const frame = ring.client().Begin(1, 0, 0);
      return reinterpret_cast<std::byte*>(frame);
    }();
    const auto word = static_cast<std::uint32_t>(size);
    reinterpret_cast<wire::FrameHeader*>(first)->commit.store(word);
    const bool possible = size >= sizeof(wire::FrameHeader) &&
                          size <= wire::kMaxFrameBytes &&
                          size % wire::kFrameAlign == 0;
    std::uint32_t bytes = 0;
    const RingServer::NextResult result = ring.server().PeekSize(&bytes);
    ASSERT_EQ(result, size == 0  ? RingServer::NextResult::kNone
                      : possible ? RingServer::NextResult::kFrame
                                 : RingServer::NextResult::kCorrupt)
        << size;
  }
  for (const std::uint32_t word : {0x80000000u, 0xfffffff0u, 0xffffffffu}) {
    RingPair ring;
    ring.client().Begin(1, 0, 0)->commit.store(word);
    std::uint32_t bytes = 0;
    EXPECT_EQ(ring.server().PeekSize(&bytes), RingServer::NextResult::kCorrupt)
        << word;
  }
}

TEST(RingTrust, SharedHeaderIsNotReadBack) {
  RingPair ring;
  std::vector<std::byte> payload(64, std::byte{7});
  ASSERT_TRUE(ring.Send(1, payload));
  // All that the server wrote, overwritten by the client.
  wire::RingHeader* const header = Header(&ring.client());
  ASSERT_EQ(header->magic, wire::kRingMagic);
  header->ring_bytes = ~0ull;
  header->ring_offset = ~0ull;
  header->slots_offset = ~0ull;
  header->leases_offset = ~0ull;
  header->slot_count = ~0u;
  header->lease_count = ~0u;
  header->head.store(~0ull);
  EXPECT_EQ(ring.Take().size(), sizeof(wire::FrameHeader) + 64);
  EXPECT_FALSE(ring.server().ValidSlot(16));
  EXPECT_TRUE(ring.server().ValidSlot(15));
  ring.server().Complete(15, 0, payload, 0);
  EXPECT_TRUE(ring.server().Staging(16, 1).empty());
  EXPECT_EQ(ring.server().Staging(15, 1).size(), 1u);
  ring.server().ReleaseLease(16);
  ring.server().ReleaseLease(~0u);
}

TEST(RingTrust, StagingSpansStayInsideTheArena) {
  RingPair ring;
  const std::uint64_t bytes = ring.server().geometry().staging_bytes;
  const std::uint32_t units =
      static_cast<std::uint32_t>(bytes / wire::kLeaseBytes);
  for (std::uint32_t lease = 0; lease < units + 2; ++lease) {
    const std::uint64_t room =
        lease < units ? bytes - std::uint64_t{lease} * wire::kLeaseBytes : 0;
    for (const std::uint64_t want : std::initializer_list<std::uint64_t>{
             1, room, room + 1, ~0ull, 1ull << 63}) {
      const bool fits = lease < units && want <= room;
      EXPECT_EQ(ring.server().Staging(lease, want).size(), fits ? want : 0)
          << lease << " " << want;
    }
  }
  EXPECT_TRUE(ring.server().Staging(0x10000, 1).empty());
  EXPECT_TRUE(ring.server().Staging(wire::kNoLease, 1).empty());
}

TEST(RingTrust, MemoryCannotBeShrunkUnderTheServer) {
  RingPair ring;
  EXPECT_NE(::ftruncate(ring.server().ring_fd(), 0), 0);
  EXPECT_NE(::ftruncate(ring.server().staging_fd(), 4096), 0);
  EXPECT_NE(::ftruncate(ring.server().staging_fd(), 1 << 30), 0);
}

TEST(RingTrust, BadGeometryIsRefused) {
  const auto code = [](RingGeometry geometry) {
    return RingServer::Create(geometry).status().code();
  };
  for (const std::uint64_t bytes : std::initializer_list<std::uint64_t>{
           0, 4096, 128 << 10, (256 << 10) + 1, 3 << 20, 1ull << 31, ~0ull}) {
    RingGeometry geometry = SmallGeometry();
    geometry.ring_bytes = bytes;
    EXPECT_EQ(code(geometry), Code::kInvalid) << bytes;
  }
  for (const std::uint64_t bytes : std::initializer_list<std::uint64_t>{
           0, 1, 65535, 65537, (1ull << 32) + 65536}) {
    RingGeometry geometry = SmallGeometry();
    geometry.staging_bytes = bytes;
    EXPECT_EQ(code(geometry), Code::kInvalid) << bytes;
  }
  for (const std::uint32_t count : {0u, 4097u}) {
    RingGeometry geometry = SmallGeometry();
    geometry.slot_count = count;
    EXPECT_EQ(code(geometry), Code::kInvalid) << count;
  }
}

TEST(RingTrust, ClientRefusesAnotherVersionOfTheLayout) {
  RingPair ring;
  wire::RingHeader* const header = Header(&ring.client());
  header->version = wire::kRingVersion + 1;
  RingClient other;
  const Status status = ring.MapClient(&other);
  EXPECT_EQ(status.code(), Code::kIncompatible);
  EXPECT_NE(status.message().find(std::to_string(wire::kRingVersion + 1)),
            std::string::npos);
  EXPECT_FALSE(other.mapped());
  header->version = wire::kRingVersion;
  header->magic = 0;
  EXPECT_EQ(ring.MapClient(&other).code(), Code::kIncompatible);
}

// A producer killed between reservation and commit: what comes behind it is
// never taken (its calls might have depended on the missing one), and the
// server can tell that something is missing.
TEST(RingTrust, FrameOfAKilledProcessBlocksWhatIsBehindIt) {
  RingPair ring;
  ASSERT_TRUE(ring.Send(1, {}));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // The mapping was not inherited; the descriptors were.
    RingClient mine;
    if (!ring.MapClient(&mine).ok()) ::_exit(1);
    if (mine.Begin(2, 0, 100) == nullptr) ::_exit(2);
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  ASSERT_TRUE(ring.Send(3, {}));
  EXPECT_FALSE(ring.Take().empty());  // the first
  std::uint32_t bytes = 0;
  EXPECT_EQ(ring.server().PeekSize(&bytes), RingServer::NextResult::kNone);
  EXPECT_TRUE(ring.server().HasReservations());
}

// Frames that overlap each other, sizes that run past what was reserved: the
// server reads only inside the (twice mapped) ring.
TEST(RingTrust, LargestFrameAtTheVeryEndStaysInsideTheMapping) {
  RingPair ring;
  const std::uint64_t ring_bytes = ring.server().geometry().ring_bytes;
  // Walk to the last unit of the ring.
  std::vector<std::byte> payload(1024 - sizeof(wire::FrameHeader));
  for (std::uint64_t at = 0; at + 1024 < ring_bytes; at += 1024) {
    ASSERT_TRUE(ring.Send(1, payload));
    ASSERT_FALSE(ring.Take().empty());
  }
  payload.resize(1024 - 16 - sizeof(wire::FrameHeader));
  ASSERT_TRUE(ring.Send(1, payload));
  ASSERT_FALSE(ring.Take().empty());
  wire::FrameHeader* const frame = ring.client().Begin(1, 0, 0);
  ASSERT_NE(frame, nullptr);
  frame->commit.store(wire::kMaxFrameBytes);
  EXPECT_EQ(ring.Take().size(), wire::kMaxFrameBytes);
}

}  // namespace
}  // namespace pos
