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
  ledger_.OnAnswer(0, 3 * kMiB, 0);
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

// Before anything was taken, and after others took or gave back.
TEST_F(RunnerLedgerTest, HowMuchThereIsIsAskedEachTime) {
  for (const std::uint64_t free : {5 * kMiB, 0 * kMiB, 7 * kMiB}) {
    EXPECT_EQ(ledger_.Refresh(0), Answer::kPending);
    EXPECT_EQ(wanted_.back(), 0u);
    EXPECT_EQ(ledger_.Refresh(0), Answer::kPending);
    ledger_.OnFree(0, free);
    EXPECT_EQ(ledger_.Refresh(0), Answer::kGranted);
    EXPECT_EQ(ledger_.FreeBytes(0), free);
  }
  EXPECT_EQ(wanted_.size(), 3u);
}

// Their answers do not stand for each other.
TEST_F(RunnerLedgerTest, AskingHowMuchThereIsDeniesNothing) {
  EXPECT_EQ(ledger_.Refresh(0), Answer::kPending);
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kPending);
  ledger_.OnFree(0, 3 * kMiB);
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kPending);
  ledger_.OnAnswer(0, 2 * kMiB, kMiB);
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kGranted);
  EXPECT_EQ(ledger_.Refresh(0), Answer::kGranted);
  EXPECT_EQ(ledger_.FreeBytes(0), 2 * kMiB);
}

TEST_F(RunnerLedgerTest, WithoutPosdWhatWasKnownLastIsTold) {
  ledger_.OnAnswer(0, kMiB, 4 * kMiB);
  ledger_.SetSend([](int, std::uint64_t) { return false; },
                  [](int, std::uint64_t) { return false; });
  EXPECT_EQ(ledger_.Refresh(0), Answer::kDenied);
  EXPECT_EQ(ledger_.FreeBytes(0), 5 * kMiB);
  EXPECT_EQ(ledger_.Refresh(0), Answer::kDenied);
}

TEST_F(RunnerLedgerTest, WhatIsGivenBackCanBeTakenAgain) {
  ledger_.OnAnswer(0, 1024 * kMiB, 100 * kMiB);
  EXPECT_EQ(ledger_.Take(0, 1024 * kMiB), Answer::kGranted);
  EXPECT_EQ(ledger_.FreeBytes(0), 100 * kMiB);
  ledger_.GiveBack(0, 1024 * kMiB);
  EXPECT_FALSE(returned_.empty());
  EXPECT_EQ(ledger_.FreeBytes(0), 1124 * kMiB);
}

// Memory that a checkpoint has borrowed is waited for before the job is told
// that there is none.
TEST_F(RunnerLedgerTest, WhatCanBeReclaimedIsWaitedFor) {
  bool borrowed = true;
  ledger_.SetReclaim([&borrowed](int) { return borrowed; });
  ledger_.SetGranted(0, 10 * kMiB, 10 * kMiB);
  EXPECT_EQ(ledger_.Take(0, 4 * kMiB), Answer::kPending);
  ledger_.OnAnswer(0, 0, 0);
  EXPECT_EQ(ledger_.Take(0, 4 * kMiB), Answer::kPending);
  EXPECT_EQ(ledger_.Take(0, 4 * kMiB), Answer::kPending);
  EXPECT_EQ(wanted_.size(), 1u) << "posd is not asked again meanwhile";
  borrowed = false;
  ledger_.GiveBack(0, 5 * kMiB);
  EXPECT_EQ(ledger_.Take(0, 4 * kMiB), Answer::kGranted);
}

TEST_F(RunnerLedgerTest, WhatIsReclaimedMayNotBeEnough) {
  bool borrowed = true;
  ledger_.SetReclaim([&borrowed](int) { return borrowed; });
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kPending);
  ledger_.OnAnswer(0, 0, 0);
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kPending);
  borrowed = false;
  // posd may have some by now.
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kPending);
  EXPECT_EQ(wanted_.size(), 2u);
  ledger_.OnAnswer(0, 0, 0);
  EXPECT_EQ(ledger_.Take(0, kMiB), Answer::kDenied);
}

// Others may have taken what posd has granted.
TEST_F(RunnerLedgerTest, NothingIsPromisedThatTheDeviceDoesNotHave) {
  std::uint64_t promised_before = 0;
  std::uint64_t room = 5 * kMiB;
  ledger_.SetHeadroom([&](int, std::uint64_t promised) {
    promised_before = promised;
    return room - std::min(room, promised);
  });
  ledger_.OnAnswer(0, 100 * kMiB, 0);
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
