// The runner's share of device memory, posd's answers given by the test.
#include "pos/runner/runner_ledger.h"

#include <gtest/gtest.h>

#include <vector>

namespace pos {
namespace {

using Answer = MemoryLedger::Answer;
constexpr std::uint64_t kMiB = 1 << 20;

class RunnerLedgerTest : public ::testing::Test {
 protected:
  RunnerLedgerTest() {
    ledger_.SetSend(
        [this](int, std::uint64_t bytes) {
          wanted_.push_back(bytes);
          return true;
        },
        [this](int, std::uint64_t bytes) {
          returned_.push_back(bytes);
          return true;
        });
  }

  RunnerLedger ledger_{1};
  std::vector<std::uint64_t> wanted_;
  std::vector<std::uint64_t> returned_;
};

TEST_F(RunnerLedgerTest, WhatIsNotGrantedIsAskedFor) {
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kPending);
  EXPECT_EQ(wanted_, std::vector<std::uint64_t>{kMiB});
  ledger_.OnAnswer(0, 3 * kMiB, 0, false);
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kGranted);
  EXPECT_EQ(ledger_.FreeBytes(0), 2 * kMiB);
}

// What a restored session holds is not there to be taken again.
TEST_F(RunnerLedgerTest, ARestoredSessionTakesOnlyWhatItDoesNotHold) {
  ledger_.SetGranted(0, 100 * kMiB, 99 * kMiB);
  EXPECT_EQ(ledger_.FreeBytes(0), kMiB);
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kGranted);
  EXPECT_EQ(ledger_.Take(0, 2 * kMiB), Answer::kPending);
  EXPECT_EQ(wanted_, std::vector<std::uint64_t>{2 * kMiB});
  EXPECT_EQ(ledger_.Granted(0), 100 * kMiB);
}

TEST_F(RunnerLedgerTest, ARestoredSessionGivesBackOnlyWhatItDoesNotHold) {
  constexpr std::uint64_t kHeld = 1024 * kMiB;
  ledger_.SetGranted(0, kHeld, kHeld);
  ledger_.GiveBack(0, kMiB);
  EXPECT_TRUE(returned_.empty()) << returned_[0];
  ledger_.GiveBack(0, kHeld - kMiB);
  EXPECT_EQ(returned_,
            std::vector<std::uint64_t>{kHeld - RunnerLedger::kPiece});
}

// An image that says less than it holds: nothing is left, not everything.
TEST_F(RunnerLedgerTest, MoreHeldThanGrantedLeavesNothing) {
  ledger_.SetGranted(0, kMiB, 2 * kMiB);
  EXPECT_EQ(ledger_.FreeBytes(0), 0u);
  EXPECT_EQ(ledger_.Take(0, 1), Answer::kPending);
}

// A program may ask what is free before it has taken anything.
TEST_F(RunnerLedgerTest, WhatIsFreeIsAskedFor) {
  EXPECT_EQ(ledger_.Ask(0), Answer::kPending);
  EXPECT_EQ(wanted_, std::vector<std::uint64_t>{0});
  EXPECT_EQ(ledger_.Ask(0), Answer::kPending);
  // Memory that is asked for meanwhile is another matter.
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kPending);
  ledger_.OnAnswer(0, 0, 50 * kMiB, true);
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kPending);
  EXPECT_EQ(ledger_.Ask(0), Answer::kGranted);
  EXPECT_EQ(ledger_.FreeBytes(0), 50 * kMiB);
  ledger_.OnAnswer(0, 10 * kMiB, 40 * kMiB, false);
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kGranted);
  EXPECT_EQ(ledger_.FreeBytes(0), 49 * kMiB);
  // Each time anew.
  EXPECT_EQ(ledger_.Ask(0), Answer::kPending);
  EXPECT_EQ(wanted_, (std::vector<std::uint64_t>{0, kMiB, 0}));
}

TEST_F(RunnerLedgerTest, WithoutPosdWhatIsFreeIsWhatIsKnown) {
  ledger_.SetSend([](int, std::uint64_t) { return false; }, {});
  EXPECT_EQ(ledger_.Ask(0), Answer::kGranted);
  EXPECT_EQ(ledger_.FreeBytes(0), 0u);
}

// Others may have taken what posd has granted.
TEST_F(RunnerLedgerTest, NothingIsPromisedThatTheDeviceDoesNotHave) {
  std::uint64_t promised_before = 0;
  std::uint64_t room = 5 * kMiB;
  ledger_.SetHeadroom([&](int, std::uint64_t promised) {
    promised_before = promised;
    return room - std::min(room, promised);
  });
  ledger_.OnAnswer(0, 100 * kMiB, 0, false);
  EXPECT_EQ(ledger_.FreeBytes(0), 5 * kMiB);
  EXPECT_EQ(ledger_.Take(0, 3 * kMiB), Answer::kGranted);
  EXPECT_EQ(ledger_.Take(0, 3 * kMiB), Answer::kDenied);
  EXPECT_EQ(promised_before, 3 * kMiB);
  EXPECT_EQ(ledger_.Take(0, 2 * kMiB), Answer::kGranted);
  // They have given it back.
  room = 200 * kMiB;
  EXPECT_EQ(ledger_.Take(0, 3 * kMiB), Answer::kGranted);
  EXPECT_EQ(ledger_.FreeBytes(0), 92 * kMiB);
  EXPECT_TRUE(wanted_.empty());
}

}  // namespace
}  // namespace pos
