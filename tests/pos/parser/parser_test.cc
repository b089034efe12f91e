#include "pos/parser/parser.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include "tests/support/fake_stages.h"

namespace pos {
namespace {

using Outcome = ApiParser::Outcome;

class ParserTest : public ::testing::Test {
 protected:
  // A call as the front end would pass it on.
  ApiContext* Push(std::uint64_t pc, bool wants_reply = true) {
    ApiContext* const context = pool_.Take();
    context->pc = pc;
    context->slot = wants_reply ? 0 : wire::kNoSlot;
    ApiContext* pushed = context;
    EXPECT_TRUE(in_->TryPush(pushed));
    return context;
  }
  std::vector<std::uint64_t> Forwarded() {
    std::vector<std::uint64_t> pcs;
    ApiContext* context = nullptr;
    while (out_->TryPop(&context)) {
      EXPECT_TRUE(context->parsed);
      pcs.push_back(context->pc);
      pool_.Give(ContextPool::Lane::kWorker, context);
    }
    return pcs;
  }
  void Run() {
    while (parser_.Step()) {
    }
  }

  FakeParser api_;
  FakePort port_;
  ContextPool pool_;
  std::unique_ptr<ContextQueue> in_ = std::make_unique<ContextQueue>();
  std::unique_ptr<ContextQueue> out_ = std::make_unique<ContextQueue>();
  NoticeBoard notices_;
  Parser parser_{&api_, &pool_, &port_, in_.get(), out_.get(), &notices_};
};

using Pcs = std::vector<std::uint64_t>;

TEST_F(ParserTest, AnswersOrForwardsEachCallOnceInOrder) {
  api_.on_parse = [](ApiContext* context) {
    context->result = static_cast<std::int32_t>(context->pc);
    return context->pc % 2 == 0 ? Outcome::kAnswered : Outcome::kForward;
  };
  for (std::uint64_t pc = 1; pc <= 100; ++pc) Push(pc, pc % 4 != 0);
  Run();
  EXPECT_EQ(api_.parsed.size(), 100u);
  const Pcs forwarded = Forwarded();
  ASSERT_EQ(forwarded.size(), 50u);
  for (std::size_t i = 0; i < forwarded.size(); ++i) {
    EXPECT_EQ(forwarded[i], 2 * i + 1);
  }
  for (std::uint64_t pc = 2; pc <= 100; pc += 2) {
    EXPECT_EQ(port_.Replies(pc), pc % 4 != 0 ? 1 : 0) << pc;
    EXPECT_EQ(port_.Released(pc), 1) << pc;
  }
  EXPECT_EQ(port_.Replies(1), 0) << "the worker's to answer";
  EXPECT_EQ(pool_.Outstanding(), 0u);
  EXPECT_TRUE(parser_.Idle());
  EXPECT_TRUE(parser_.Quiet());
}

// A call that the parser itself answered before it forwarded it.
TEST_F(ParserTest, EarlyAnswerIsNotGivenTwice) {
  api_.on_parse = [this](ApiContext* context) {
    port_.Reply(context);
    return Outcome::kAnswered;
  };
  Push(1);
  Run();
  EXPECT_EQ(port_.Replies(1), 1);
}

// Thread A waits for memory; thread B's call is what will free it. B's must not
// wait behind A's.
TEST_F(ParserTest, StalledCallLetsTheOthersPass) {
  bool memory = false;
  api_.on_parse = [&](ApiContext* context) {
    const bool allocation = context->pc % 10 == 1;
    return allocation && !memory ? Outcome::kStall : Outcome::kForward;
  };
  for (std::uint64_t pc = 1; pc <= 25; ++pc) Push(pc);
  Run();
  const Pcs first = Forwarded();
  EXPECT_EQ(first.size(), 22u);
  for (const std::uint64_t pc : first) EXPECT_NE(pc % 10, 1u);
  EXPECT_EQ(parser_.waiting().size(), 3u);
  EXPECT_FALSE(parser_.Idle()) << "it has to be tried again";
  EXPECT_TRUE(parser_.Quiet()) << "a cut takes waiting calls along";
  EXPECT_FALSE(parser_.Step()) << "trying in vain is no progress";
  EXPECT_EQ(parser_.waiting().front()->pc, 1u);
  memory = true;
  EXPECT_TRUE(parser_.Step());
  EXPECT_EQ(Forwarded(), Pcs({1, 11, 21})) << "in their order";
  EXPECT_TRUE(parser_.Idle());
}

TEST_F(ParserTest, FullQueueKeepsOneCallBackAndLosesNone) {
  std::uint32_t woken = 0;
  parser_.SetDownstreamWake([&woken] { ++woken; });
  for (std::uint64_t pc = 1; pc <= kQueueCapacity; ++pc) Push(pc, false);
  Run();
  for (std::uint64_t pc = 1; pc <= 10; ++pc) Push(kQueueCapacity + pc, false);
  Run();
  EXPECT_FALSE(parser_.Quiet());
  EXPECT_FALSE(parser_.Idle());
  EXPECT_EQ(woken, kQueueCapacity);
  Pcs all = Forwarded();
  Run();
  for (const std::uint64_t pc : Forwarded()) all.push_back(pc);
  ASSERT_EQ(all.size(), kQueueCapacity + 10);
  for (std::size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], i + 1);
  EXPECT_TRUE(parser_.Quiet());
}

TEST_F(ParserTest, NoticesAreKnownBeforeTheNextCallIsParsed) {
  std::size_t known = 0;
  api_.on_parse = [&](ApiContext*) {
    known = api_.noticed.size();
    return Outcome::kForward;
  };
  Push(1);
  notices_.Post({.what = 7});
  notices_.Post({.what = 8});
  EXPECT_FALSE(parser_.Quiet());
  EXPECT_FALSE(parser_.Idle());
  parser_.Step();
  EXPECT_EQ(known, 2u);
  EXPECT_EQ(api_.noticed, std::vector<std::uint32_t>({7, 8}));
  notices_.Post({.what = 9});
  EXPECT_TRUE(parser_.Step());
  EXPECT_EQ(api_.noticed.size(), 3u) << "also without a call";
  EXPECT_TRUE(parser_.Idle());
}

TEST_F(ParserTest, NoticesFromTheWorkersThreadAreNotLost) {
  constexpr std::uint32_t kNotices = 50000;
  std::atomic<std::uint32_t> woken{0};
  notices_.SetWake([&woken] { woken.fetch_add(1); });
  std::thread worker([&] {
    for (std::uint32_t i = 0; i < kNotices; ++i) notices_.Post({.what = i});
  });
  while (api_.noticed.size() < kNotices) parser_.Step();
  worker.join();
  for (std::uint32_t i = 0; i < kNotices; ++i) ASSERT_EQ(api_.noticed[i], i);
  EXPECT_EQ(woken.load(), kNotices);
}

}  // namespace
}  // namespace pos
