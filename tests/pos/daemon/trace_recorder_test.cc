#include "pos/daemon/trace_recorder.h"

#include <gtest/gtest.h>

namespace pos {
namespace {

TEST(TraceRecorder, PhasesFollowEachOther) {
  TraceRecorder trace(MonotonicNs());
  trace.Phase("one");
  trace.Phase("one");
  trace.Phase("two");
  const std::vector<v1::TraceEvent> events = trace.Events();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].name(), "one");
  EXPECT_EQ(events[1].name(), "two");
  EXPECT_LE(events[0].begin_us() + events[0].duration_us(),
            events[1].begin_us() + 1);
  EXPECT_EQ(trace.Events().size(), 2u);  // looking does not end it
}

TEST(TraceRecorder, SpansBelongToSessions) {
  TraceRecorder trace(MonotonicNs());
  {
    auto span = trace.Begin("save", 7);
    span.set_bytes(11);
    EXPECT_TRUE(trace.Events().empty());
  }
  const std::vector<v1::TraceEvent> events = trace.Events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].session(), 7u);
  EXPECT_EQ(events[0].bytes(), 11u);
}

TEST(TraceRecorder, TimesBeforeTheStartAreTheStart) {
  TraceRecorder trace(5'000'000);
  trace.Add("early", 0, 1'000'000, 6'000'000);
  trace.Add("odd", 0, 9'000'000, 8'000'000);
  const std::vector<v1::TraceEvent> events = trace.Events();
  EXPECT_EQ(events[0].begin_us(), 0u);
  EXPECT_EQ(events[1].begin_us(), 4000u);
  EXPECT_EQ(events[1].duration_us(), 0u);
}

TEST(TraceRecorder, HasAnEnd) {
  TraceRecorder trace(0);
  for (int i = 0; i < 100'100; ++i) trace.Add("x", 0, 0, 1);
  EXPECT_EQ(trace.Events().size(), 100'000u);
}

}  // namespace
}  // namespace pos
