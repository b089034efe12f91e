// Device conformance: order within and between streams, events, completions.
#include <random>

#include "tests/conformance/device/fixture.h"

namespace pos::conformance {
namespace {

TEST_F(DeviceTest, OneStreamRunsInOrder) {
  const DeviceAddress data = Allocate(512);
  for (DeviceStream* stream : {Stream(), context_->default_stream()}) {
    stream->Fill(data, 0, 4, 128, 1, 0, 0);
    std::uint32_t want = 0;
    for (std::uint32_t i = 0; i < 300; ++i) {
      Affine(stream, data, 128, 2 * i + 3, i);
      want = want * (2 * i + 3) + i;
    }
    ASSERT_EQ(Await(stream), 0);
    for (const std::uint32_t value : Read<std::uint32_t>(data, 128)) {
      ASSERT_EQ(value, want);
    }
  }
}

TEST_F(DeviceTest, KernelsCopiesAndFillsOfAStreamAlternateInOrder) {
  const std::uint32_t n = 5000;
  const DeviceAddress a = Allocate(n * 4);
  const DeviceAddress b = Allocate(n * 4);
  DeviceStream* stream = Stream();
  std::uint32_t want = 0;
  for (std::uint32_t i = 0; i < 40; ++i) {
    Affine(stream, a, n, 3, i);
    stream->Copy(b, a, n * 4, 0);
    stream->Fill(a, i, 4, n, 1, 0, 0);
    Affine(stream, b, n, 5, 1);
    stream->Copy(a, b, n * 4, 0);
    want = (want * 3 + i) * 5 + 1;
  }
  ASSERT_EQ(Await(stream), 0);
  for (const std::uint32_t value : Read<std::uint32_t>(a, n)) {
    ASSERT_EQ(value, want);
  }
}

TEST_F(DeviceTest, StreamsDoNotWaitForEachOther) {
  DeviceStream* held = Stream(kStreamDefault);
  const Gate gate = Hold(held, 1000);
  const DeviceAddress data = Allocate(4);
  DeviceStream* other = Stream(kStreamDefault);
  Affine(other, data, 1, 1, 5);
  EXPECT_EQ(Await(other), 0);
  EXPECT_EQ(sink_.Times(1000), 0);
  EXPECT_FALSE(held->Query().has_value());
  EXPECT_EQ(other->Query(), 0);
  Release(gate);
  EXPECT_EQ(sink_.Await(1000), 0);
  EXPECT_EQ(Await(held), 0);
  EXPECT_EQ(held->Query(), 0);
}

TEST_F(DeviceTest, KernelsOfDifferentStreamsRunAtTheSameTime) {
  // A chain: kernel i waits for what kernel i + 1 writes, submitted in order.
  constexpr std::uint32_t kKernels = 12;
  const DeviceAddress flags = Allocate(4 * (kKernels + 1));
  for (std::uint32_t i = 0; i < kKernels; ++i) {
    Run(Stream(), Basic("wait"),
        Params(flags + 4 * (i + 1), std::uint32_t{1}, flags + 4 * i));
  }
  Run(Stream(), Basic("poke"), Params(flags + 4 * kKernels, std::uint32_t{1}));
  EXPECT_EQ(AwaitIdle(), 0);
  EXPECT_EQ(ReadWord(flags), 1u);
}

TEST_F(DeviceTest, UrgentStreamsDoNotStarveOthers) {
  const DeviceAddress flags = Allocate(64);
  for (int i = 0; i < 4; ++i) {
    Run(Stream(kStreamNonBlocking, -5), Basic("wait"),
        Params(flags, std::uint32_t{1}, flags + 4));
  }
  Run(Stream(kStreamNonBlocking, 0), Basic("poke"),
      Params(flags, std::uint32_t{1}));
  EXPECT_EQ(AwaitIdle(), 0);
}

TEST_F(DeviceTest, SpinningKernelIsReleasedByACopyAndByTheHost) {
  DeviceStream* stream = Stream();
  const Gate gate = Hold(stream);
  Release(gate);
  EXPECT_EQ(Await(stream), 0);
  auto* host = static_cast<std::uint32_t*>(harness_->HostMemory(4096));
  const auto at = reinterpret_cast<DeviceAddress>(host);
  ASSERT_TRUE(device_->MapHost(at, 4096).ok());
  Run(stream, Basic("wait"), Params(at, std::uint32_t{4}, at + 64));
  __atomic_store_n(host, 4u, __ATOMIC_RELEASE);
  EXPECT_EQ(Await(stream), 0);
  EXPECT_EQ(__atomic_load_n(host + 16, __ATOMIC_ACQUIRE), 4u);
}

TEST_F(DeviceTest, EventsOrderStreams) {
  const DeviceAddress data = Allocate(4);
  DeviceStream* a = Stream();
  DeviceStream* b = Stream();
  DeviceEvent* event = Event();
  const Gate gate = Hold(a);
  Affine(a, data, 1, 0, 10);
  a->RecordEvent(event, 0);
  b->WaitEvent(event, 0);
  Affine(b, data, 1, 3, 1);
  EXPECT_FALSE(event->Query().has_value());
  EXPECT_FALSE(event->TimestampNs().has_value());
  Release(gate);
  ASSERT_EQ(Await(b), 0);
  EXPECT_EQ(ReadWord(data), 31u);
  EXPECT_EQ(event->Query(), 0);
  EXPECT_TRUE(event->TimestampNs().has_value());
}

TEST_F(DeviceTest, WaitMeansTheLatestRecordAtItsTime) {
  DeviceStream* a = Stream();
  DeviceStream* b = Stream();
  DeviceEvent* event = Event();
  const Gate first = Hold(a);
  a->RecordEvent(event, 0);
  b->WaitEvent(event, 1001);
  const Gate second = Hold(a);
  a->RecordEvent(event, 0);
  event->Notify(1002);
  Release(first);
  EXPECT_EQ(sink_.Await(1001), 0);
  EXPECT_FALSE(event->Query().has_value());
  EXPECT_EQ(sink_.Times(1002), 0);
  Release(second);
  EXPECT_EQ(sink_.Await(1002), 0);
  EXPECT_EQ(event->Query(), 0);
}

TEST_F(DeviceTest, EventThatWasNeverRecordedIsCompleteAndHoldsNobody) {
  DeviceEvent* event = Event();
  EXPECT_EQ(event->Query(), 0);
  EXPECT_FALSE(event->TimestampNs().has_value());
  event->Notify(1001);
  EXPECT_EQ(sink_.Await(1001), 0);
  DeviceStream* stream = Stream();
  stream->WaitEvent(event, 1002);
  EXPECT_EQ(sink_.Await(1002), 0);
}

TEST_F(DeviceTest, EventTimestampsFollowTheDeviceClock) {
  DeviceStream* stream = Stream();
  DeviceEvent* start = Event();
  DeviceEvent* stop = Event();
  const std::uint64_t before = device_->NowNs();
  stream->RecordEvent(start, 0);
  const Gate gate = Hold(stream);
  stream->RecordEvent(stop, 0);
  Release(gate);
  ASSERT_EQ(Await(stream), 0);
  const std::uint64_t after = device_->NowNs();
  ASSERT_TRUE(start->TimestampNs() && stop->TimestampNs());
  EXPECT_LE(before, *start->TimestampNs());
  EXPECT_LE(*start->TimestampNs(), *stop->TimestampNs());
  EXPECT_LE(*stop->TimestampNs(), after);
}

TEST_F(DeviceTest, EventsWithoutTimingHaveNoTimestamp) {
  DeviceStream* stream = Stream();
  DeviceEvent* event = Event(kEventDisableTiming | kEventBlockingSync);
  stream->RecordEvent(event, 0);
  ASSERT_EQ(Await(stream), 0);
  EXPECT_EQ(event->Query(), 0);
  EXPECT_FALSE(event->TimestampNs().has_value());
}

TEST_F(DeviceTest, RestoredEventKeepsItsTime) {
  DeviceEvent* event = Event();
  event->SetRecorded(123456789);
  EXPECT_EQ(event->Query(), 0);
  EXPECT_EQ(event->TimestampNs(), 123456789u);
  DeviceStream* stream = Stream();
  stream->WaitEvent(event, 1001);
  EXPECT_EQ(sink_.Await(1001), 0);
  stream->RecordEvent(event, 0);
  ASSERT_EQ(Await(stream), 0);
  EXPECT_NE(event->TimestampNs(), 123456789u);
}

TEST_F(DeviceTest, DefaultStreamWaitsForBlockingStreams) {
  const DeviceAddress data = Allocate(4);
  DeviceStream* blocking = Stream(kStreamDefault);
  const Gate gate = Hold(blocking);
  Affine(blocking, data, 1, 0, 7);
  Affine(context_->default_stream(), data, 1, 2, 1, 1001);
  // Exempt.
  EXPECT_EQ(Await(Stream(kStreamNonBlocking)), 0);
  EXPECT_EQ(sink_.Times(1001), 0);
  EXPECT_FALSE(context_->default_stream()->Query().has_value());
  Release(gate);
  EXPECT_EQ(sink_.Await(1001), 0);
  ASSERT_EQ(AwaitIdle(), 0);
  EXPECT_EQ(ReadWord(data), 15u);
}

TEST_F(DeviceTest, BlockingStreamsWaitForTheDefaultStream) {
  const DeviceAddress data = Allocate(4);
  const Gate gate = Hold(context_->default_stream());
  Affine(context_->default_stream(), data, 1, 0, 7);
  DeviceStream* blocking = Stream(kStreamDefault);
  Affine(blocking, data, 1, 2, 1, 1001);
  EXPECT_EQ(Await(Stream(kStreamNonBlocking)), 0);
  EXPECT_EQ(sink_.Times(1001), 0);
  EXPECT_FALSE(blocking->Query().has_value());
  Release(gate);
  EXPECT_EQ(sink_.Await(1001), 0);
  ASSERT_EQ(AwaitIdle(), 0);
  EXPECT_EQ(ReadWord(data), 15u);
}

TEST_F(DeviceTest, DefaultStreamAlternatesWithManyBlockingStreams) {
  const DeviceAddress data = Allocate(4);
  std::vector<DeviceStream*> streams;
  for (int i = 0; i < 8; ++i) streams.push_back(Stream(kStreamDefault));
  std::uint32_t want = 0;
  for (std::uint32_t i = 0; i < 100; ++i) {
    Affine(streams[i % 8], data, 1, 3, i);
    Affine(context_->default_stream(), data, 1, 5, 1);
    want = (want * 3 + i) * 5 + 1;
  }
  ASSERT_EQ(Await(context_->default_stream()), 0);
  ASSERT_EQ(AwaitIdle(), 0);
  EXPECT_EQ(ReadWord(data), want);
}

TEST_F(DeviceTest, WaitingForTheDefaultStreamHoldsNothingBack) {
  const Gate gate = Hold(Stream(kStreamDefault));
  context_->default_stream()->Notify(1001);
  const DeviceAddress data = Allocate(4);
  DeviceStream* later = Stream(kStreamDefault);
  Affine(later, data, 1, 1, 3);
  EXPECT_EQ(Await(later), 0);
  EXPECT_EQ(sink_.Times(1001), 0);
  Release(gate);
  EXPECT_EQ(sink_.Await(1001), 0);
}

TEST_F(DeviceTest, NotifyIdleCoversAllStreamsSoFar) {
  const Gate first = Hold(Stream());
  const Gate second = Hold(Stream(kStreamDefault));
  context_->NotifyIdle(1001);
  const Gate later = Hold(Stream());
  Release(second);
  EXPECT_EQ(sink_.Times(1001), 0);
  Release(first);
  EXPECT_EQ(sink_.Await(1001), 0);
  Release(later);
  EXPECT_EQ(AwaitIdle(), 0);
}

TEST_F(DeviceTest, EveryTokenIsReportedExactlyOnce) {
  const DeviceAddress data = Allocate(65536);
  DeviceEvent* event = Event();
  std::vector<DeviceStream*> streams;
  for (int i = 0; i < 20; ++i) {
    streams.push_back(Stream(i % 2 ? kStreamDefault : kStreamNonBlocking));
  }
  streams.push_back(context_->default_stream());
  std::mt19937 random(6);
  std::uint64_t token = 5000;
  for (int i = 0; i < 2000; ++i) {
    DeviceStream* stream = streams[random() % streams.size()];
    switch (random() % 7) {
      case 0:
        stream->Copy(data, data + 32768, random() % 20000, ++token);
        break;
      case 1:
        stream->Fill(data, 1, 4, random() % 1000, 1, 0, ++token);
        break;
      case 2:
        Affine(stream, data, 64, 1, 1, ++token);
        break;
      case 3:
        stream->RecordEvent(event, ++token);
        break;
      case 4:
        stream->WaitEvent(event, ++token);
        break;
      case 5:
        event->Notify(++token);
        break;
      default:
        stream->Notify(++token);
    }
    if (i % 100 == 0) context_->NotifyIdle(++token);
  }
  ASSERT_EQ(AwaitIdle(), 0);
  for (std::uint64_t t = 5001; t <= token; ++t) {
    EXPECT_EQ(sink_.Await(t), 0);
    EXPECT_EQ(sink_.Times(t), 1) << t;
  }
}

TEST_F(DeviceTest, DestroyedStreamsAndEventsFinishTheirWork) {
  const DeviceAddress data = Allocate(4);
  auto stream = context_->CreateStream(kStreamNonBlocking, 0);
  auto event = context_->CreateEvent(0);
  ASSERT_TRUE(stream.ok() && event.ok());
  const Gate gate = Hold(stream->get());
  Affine(stream->get(), data, 1, 1, 8);
  (*stream)->RecordEvent(event->get(), 0);
  DeviceStream* waiter = Stream();
  waiter->WaitEvent(event->get(), 1001);
  event->reset();
  stream->reset();
  EXPECT_EQ(sink_.Times(1001), 0);
  Release(gate);
  EXPECT_EQ(sink_.Await(1001), 0);
  ASSERT_EQ(AwaitIdle(), 0);
  EXPECT_EQ(ReadWord(data), 8u);
}

TEST_F(DeviceTest, ThousandsOfStreamsAndEventsWork) {
  constexpr std::uint32_t kStreams = 2000;
  const DeviceAddress data = Allocate(4);
  DeviceEvent* previous = nullptr;
  std::uint32_t want = 0;
  for (std::uint32_t i = 0; i < kStreams; ++i) {
    DeviceStream* stream = Stream();
    if (previous != nullptr) stream->WaitEvent(previous, 0);
    Affine(stream, data, 1, 3, i);
    previous = Event(kEventDisableTiming);
    stream->RecordEvent(previous, 0);
    want = want * 3 + i;
  }
  ASSERT_EQ(AwaitIdle(), 0);
  EXPECT_EQ(ReadWord(data), want);
}

}  // namespace
}  // namespace pos::conformance
