#include <fcntl.h>
#include <gmock/gmock.h>

#include <atomic>
#include <thread>
#include <vector>

#include "pos/daemon/offer_table.h"
#include "pos/daemon/stdio_offer.h"
#include "tests/pos/daemon/testing.h"

namespace pos {
namespace {

using ::testing::HasSubstr;

void Ignore(int) {}

struct Pair {
  UniqueFd ours;
  UniqueFd theirs;
};

Pair MakePair() {
  std::array<int, 2> fds{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()),
            0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

ino_t Inode(int fd) {
  struct stat st {};
  return ::fstat(fd, &st) == 0 ? st.st_ino : 0;
}

std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(ClassifyOpening, DecidesExactlyWhenTheWholeMarkIsThere) {
  StdioOffer offer;
  offer.ticket = NewTicket();
  const std::string record = OfferBytes(offer);
  for (std::size_t n = 0; n <= kPreface.size(); ++n) {
    EXPECT_EQ(ClassifyOpening(AsBytes(kPreface.substr(0, n))),
              n < kPreface.size() ? Opening::kUndecided : Opening::kHttp2)
        << n;
  }
  for (std::size_t n = 0; n <= record.size(); ++n) {
    EXPECT_EQ(ClassifyOpening(AsBytes(record).first(n)),
              n < record.size() ? Opening::kUndecided : Opening::kOffer)
        << n;
  }
}

TEST(ClassifyOpening, AnyOtherByteEndsIt) {
  StdioOffer offer;
  for (const std::string& good :
       {std::string(kPreface), OfferBytes(offer).substr(0, 8)}) {
    for (std::size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ 0x20);
      EXPECT_EQ(ClassifyOpening(AsBytes(bad)), Opening::kNeither) << i;
      EXPECT_EQ(ClassifyOpening(AsBytes(bad).first(i + 1)), Opening::kNeither)
          << i;
    }
  }
}

TEST(ReceiveOffer, GivesTheStreamsThatWereOffered) {
  for (std::uint32_t streams = 0; streams < 8; ++streams) {
    SCOPED_TRACE(streams);
    Pair pair = MakePair();
    std::array<UniqueFd, 3> files;
    std::vector<int> fds;
    StdioOffer offer;
    offer.streams = streams;
    for (std::size_t i = 0; i < 3; ++i) {
      files[i].Reset(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
      if ((streams & (1u << i)) != 0) fds.push_back(files[i].get());
    }
    ASSERT_TRUE(SendWithFds(pair.theirs.get(), OfferBytes(offer), fds));
    Result<StdioFds> got = ReceiveOffer(pair.ours.get());
    ASSERT_TRUE(got.ok()) << got.status().ToString();
    const std::array<const UniqueFd*, 3> streams_got = {&got->in, &got->out,
                                                        &got->err};
    for (std::size_t i = 0; i < 3; ++i) {
      const bool offered = (streams & (1u << i)) != 0;
      ASSERT_EQ(streams_got[i]->valid(), offered);
      if (!offered) continue;
      EXPECT_EQ(Inode(streams_got[i]->get()), Inode(files[i].get()));
      EXPECT_EQ(::fcntl(streams_got[i]->get(), F_GETFD), FD_CLOEXEC);
    }
  }
}

TEST(ReceiveOffer, RefusesOtherDescriptorsThanAnnouncedAndKeepsNone) {
  const UniqueFd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const std::size_t before = OpenFdCount();
  for (std::uint32_t streams : {0u, 1u, 3u, 7u, 8u, 0xffffffffu}) {
    for (std::size_t count = 0; count <= 6; ++count) {
      if (streams < 8 &&
          count == static_cast<std::size_t>(__builtin_popcount(streams))) {
        continue;
      }
      SCOPED_TRACE(std::to_string(streams) + " " + std::to_string(count));
      Pair pair = MakePair();
      StdioOffer offer;
      offer.streams = streams;
      const std::vector<int> fds(count, file.get());
      ASSERT_TRUE(SendWithFds(pair.theirs.get(), OfferBytes(offer), fds));
      const Result<StdioFds> got = ReceiveOffer(pair.ours.get());
      EXPECT_EQ(got.status().code(), Code::kProto);
    }
  }
  EXPECT_EQ(OpenFdCount(), before);
}

TEST(ReceiveOffer, RefusesDescriptorsInTwoPieces) {
  const UniqueFd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
  Pair pair = MakePair();
  StdioOffer offer;
  offer.streams = 3;
  const std::string bytes = OfferBytes(offer);
  const std::array<int, 1> fds = {file.get()};
  ASSERT_TRUE(SendWithFds(pair.theirs.get(), bytes.substr(0, 20), fds));
  ASSERT_TRUE(SendWithFds(pair.theirs.get(), bytes.substr(20), fds));
  EXPECT_EQ(ReceiveOffer(pair.ours.get()).status().code(), Code::kProto);
}

class OfferTableTest : public ::testing::Test {
 protected:
  // The end that the client would have; invalid when the offer was not taken.
  UniqueFd Add(OfferTable* table, std::uint64_t id, uid_t uid,
               const Ticket& ticket, OfferResult* result) {
    Pair pair = MakePair();
    *result = table->Add(id, uid, ticket, &pair.ours, Ignore);
    EXPECT_EQ(pair.ours.valid(), *result != OfferResult::kTaken);
    return std::move(pair.theirs);
  }
};

TEST_F(OfferTableTest, OneUseByTheSameUserOnly) {
  OfferTable table({});
  const Ticket ticket = NewTicket();
  OfferResult result{};
  const UniqueFd client = Add(&table, 7, 1000, ticket, &result);
  ASSERT_EQ(result, OfferResult::kTaken);
  EXPECT_EQ(table.Take(1001, ticket).status().code(), Code::kNoSuch);
  EXPECT_EQ(table.Take(0, ticket).status().code(), Code::kNoSuch);
  Ticket other = ticket;
  other[15] ^= std::byte{1};
  EXPECT_EQ(table.Take(1000, other).status().code(), Code::kNoSuch);
  EXPECT_TRUE(table.Take(1000, ticket).ok());
  const Result<UniqueFd> again = table.Take(1000, ticket);
  EXPECT_EQ(again.status().code(), Code::kNoSuch);
  EXPECT_THAT(again.status().hint(), HasSubstr("again"));
}

TEST_F(OfferTableTest, ATicketIsAUsersOwn) {
  OfferTable table({});
  const Ticket ticket = NewTicket();
  OfferResult result{};
  const UniqueFd a = Add(&table, 1, 1000, ticket, &result);
  ASSERT_EQ(result, OfferResult::kTaken);
  const UniqueFd b = Add(&table, 2, 1000, ticket, &result);
  EXPECT_EQ(result, OfferResult::kInUse);
  // Somebody else's guess neither fails nor finds anything out.
  const UniqueFd c = Add(&table, 3, 1001, ticket, &result);
  EXPECT_EQ(result, OfferResult::kTaken);
  EXPECT_TRUE(table.Take(1000, ticket).ok());
  EXPECT_TRUE(table.Take(1001, ticket).ok());
}

TEST_F(OfferTableTest, BoundedPerUserAndInAll) {
  OfferTable table({.per_uid = 3, .total = 5, .lifetime_ms = 60000});
  std::vector<UniqueFd> clients;
  OfferResult result{};
  std::uint64_t id = 0;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(Add(&table, ++id, 1000, NewTicket(), &result));
    EXPECT_EQ(result, OfferResult::kTaken);
  }
  clients.push_back(Add(&table, ++id, 1000, NewTicket(), &result));
  EXPECT_EQ(result, OfferResult::kTooMany);
  for (int i = 0; i < 2; ++i) {
    clients.push_back(Add(&table, ++id, 1001, NewTicket(), &result));
    EXPECT_EQ(result, OfferResult::kTaken);
  }
  clients.push_back(Add(&table, ++id, 1002, NewTicket(), &result));
  EXPECT_EQ(result, OfferResult::kTooMany);
  EXPECT_TRUE(table.Drop(1).valid());
  clients.push_back(Add(&table, ++id, 1002, NewTicket(), &result));
  EXPECT_EQ(result, OfferResult::kTaken);
}

TEST_F(OfferTableTest, ExpiresOldestFirstAndNotBefore) {
  OfferTable table({.per_uid = 8, .total = 8, .lifetime_ms = 200});
  const Ticket ticket = NewTicket();
  OfferResult result{};
  const std::uint64_t start = MonotonicNs();
  const UniqueFd client = Add(&table, 1, 1000, ticket, &result);
  EXPECT_FALSE(table.TakeExpired().valid());
  ASSERT_TRUE(table.NextExpiry().has_value());
  UniqueFd expired;
  ASSERT_TRUE(Eventually([&] {
    expired = table.TakeExpired();
    return expired.valid();
  }));
  EXPECT_GE(MonotonicNs() - start, 200'000'000u);
  EXPECT_EQ(table.Take(1000, ticket).status().code(), Code::kNoSuch);
  EXPECT_FALSE(table.NextExpiry().has_value());
}

TEST_F(OfferTableTest, AnExpiredOfferCannotBeTakenBeforeItIsRemoved) {
  OfferTable table({.per_uid = 8, .total = 8, .lifetime_ms = 1});
  const Ticket ticket = NewTicket();
  OfferResult result{};
  const UniqueFd client = Add(&table, 1, 1000, ticket, &result);
  const Deadline expiry = *table.NextExpiry();
  ASSERT_TRUE(Eventually([&] { return expiry.Passed(); }));
  EXPECT_EQ(table.Take(1000, ticket).status().code(), Code::kNoSuch);
  EXPECT_EQ(table.size(), 1u);
}

// Whoever takes an offer is alone in having it, and none is lost.
TEST_F(OfferTableTest, ConcurrentTakersAndDropsGetEachOfferOnce) {
  constexpr int kOffers = 200;
  OfferTable table({.per_uid = kOffers, .total = kOffers});
  std::vector<Ticket> tickets;
  std::vector<UniqueFd> clients;
  OfferResult result{};
  for (int i = 0; i < kOffers; ++i) {
    tickets.push_back(NewTicket());
    clients.push_back(Add(&table, static_cast<std::uint64_t>(i), 1000,
                          tickets.back(), &result));
    ASSERT_EQ(result, OfferResult::kTaken);
  }
  std::atomic<int> got{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (const Ticket& ticket : tickets) {
        if (table.Take(1000, ticket).ok()) got.fetch_add(1);
      }
    });
  }
  threads.emplace_back([&] {
    for (int i = kOffers; i-- > 0;) {
      if (table.Drop(static_cast<std::uint64_t>(i)).valid()) got.fetch_add(1);
    }
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(got.load(), kOffers);
  EXPECT_EQ(table.size(), 0u);
}

}  // namespace
}  // namespace pos
