// What is loaded when, and which calls wait for it. The device's writes stand
// still until the test lets them go on.
#include "ckpt/engine/lazy_load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/mutex.h"
#include "tests/ckpt/pack/session_fixture.h"
#include "tests/support/manual_device.h"

namespace pos::ckpt {
namespace {

constexpr std::uint32_t kChunk = 64 << 10;
constexpr std::uint64_t kLongNs = 20'000'000'000;
using Verdict = MemoryWatch::Verdict;

class GatedDevice : public ManualDevice {
 public:
  GatedDevice() : ManualDevice(1 << 20) {}
  Status WriteBeside(DeviceAddress dst,
                     std::span<const std::byte> src) override {
    {
      MutexLock lock(&mu_);
      begun_.push_back(dst);
      changed_.NotifyAll();
      while (allowed_ == 0) changed_.Wait(&mu_);
      --allowed_;
    }
    std::memcpy(reinterpret_cast<void*>(dst), src.data(), src.size());
    return {};
  }
  void Allow(std::uint64_t writes) {
    MutexLock lock(&mu_);
    allowed_ += writes;
    changed_.NotifyAll();
  }
  // Addresses of the writes that have begun, once there are `count`.
  std::vector<DeviceAddress> AwaitBegun(std::size_t count) {
    const Deadline deadline = Deadline::AfterMs(20000);
    MutexLock lock(&mu_);
    while (begun_.size() < count && !deadline.Passed()) {
      changed_.WaitFor(&mu_, std::chrono::nanoseconds(kLongNs));
    }
    EXPECT_GE(begun_.size(), count);
    return begun_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<DeviceAddress> begun_ POS_GUARDED_BY(mu_);
  std::uint64_t allowed_ POS_GUARDED_BY(mu_) = 0;
};

// Counts what it is told.
class Bell {
 public:
  void Ring() {
    MutexLock lock(&mu_);
    ++rung_;
    changed_.NotifyAll();
  }
  // False: not within 20 s.
  bool Await(int count) {
    const Deadline deadline = Deadline::AfterMs(20000);
    MutexLock lock(&mu_);
    while (rung_ < count && !deadline.Passed()) {
      changed_.WaitFor(&mu_, std::chrono::nanoseconds(kLongNs));
    }
    return rung_ >= count;
  }
  int rung() {
    MutexLock lock(&mu_);
    return rung_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  int rung_ POS_GUARDED_BY(mu_) = 0;
};

struct Allocation {
  std::size_t chunks = 0;
  std::uint32_t rank = 0;
  std::uint64_t shared = 0;
  bool eager = false;
  bool zeros = false;
};

class LazyLoadTest : public ::testing::Test {
 protected:
  ~LazyLoadTest() override {
    if (load_ == nullptr) return;
    device_.Allow(1'000'000);
    load_->Stop();
  }

  // Allocations one after the other, a chunk apart.
  void WriteImage(const std::vector<Allocation>& allocations) {
    allocations_ = allocations;
    std::size_t bytes = kChunk;
    for (const Allocation& a : allocations) bytes += (a.chunks + 1) * kChunk;
    memory_.assign(bytes, std::byte{0});
    std::uint64_t at = reinterpret_cast<std::uint64_t>(memory_.data());
    PackWriterOptions plain;
    plain.compress = Compression::kNone;
    auto writer = files_.Writer(plain);
    for (std::size_t i = 0; i < allocations.size(); ++i) {
      const std::size_t n = allocations[i].chunks * kChunk;
      addresses_.push_back(at);
      content_.push_back(allocations[i].zeros ? Bytes(n) : Noise(n, i + 1));
      WriteOne(writer.get(), i);
      at += n + kChunk;
    }
    ASSERT_TRUE(writer->Finish().ok());
  }
  void WriteOne(SessionWriter* writer, std::size_t i) {
    const auto table = std::make_shared<RefTable>();
    const Bytes& data = content_[i];
    for (std::size_t at = 0; at < data.size(); at += kChunk) {
      auto buffer = writer->packs().Acquire();
      ASSERT_TRUE(buffer.ok());
      std::memcpy(buffer->bytes().data(), data.data() + at, kChunk);
      writer->packs().Submit(std::move(*buffer), kChunk, table, at);
    }
    ASSERT_TRUE(writer->packs().Flush().ok());
    Region region;
    region.address = addresses_[i];
    region.bytes = data.size();
    ASSERT_TRUE(writer->BeginRegion(region).ok());
    for (const auto& [at, ref] : table->Take()) {
      ASSERT_TRUE(writer->AddChunk(ref, allocations_[i].rank).ok());
    }
  }

  Status Open(const LazyLoadOptions& options = {.threads = 1}) {
    SessionLoadFiles files;
    POS_ASSIGN_OR_RETURN(files.index, OpenFile(files_.index_path(), O_RDONLY));
    POS_ASSIGN_OR_RETURN(UniqueFd pack, OpenFile(files_.pack_path(), O_RDONLY));
    files.packs.emplace_back(files_.pack_id(), std::move(pack));
    POS_ASSIGN_OR_RETURN(std::unique_ptr<SessionImage> image,
                         SessionImage::Open(std::move(files)));
    std::vector<LazyLoad::Target> targets;
    for (std::size_t i = 0; i < allocations_.size(); ++i) {
      const Allocation& a = allocations_[i];
      targets.push_back({.region = i,
                         .device = a.eager ? nullptr : &device_,
                         .eager = a.eager,
                         .shared = a.shared});
    }
    POS_ASSIGN_OR_RETURN(load_,
                         LazyLoad::Create(std::move(image), targets, options));
    return {};
  }
  void Begin() {
    load_->Begin({.wake = [this] { wakes_.Ring(); },
                  .ended = [this] { ended_.Ring(); }});
  }

  MemoryRange Inside(std::size_t i, std::uint64_t offset = 1,
                     std::uint64_t bytes = 1) const {
    return {addresses_[i] + offset, bytes};
  }
  MemoryRange Whole(std::size_t i) const {
    return {addresses_[i], content_[i].size()};
  }
  Verdict Ask(const AccessSet& set, bool releases = false) {
    CallAccess access;
    access.what = "test";
    access.releases = releases;
    access.set = &set;
    return load_->BeforeCall(access);
  }
  Verdict AskRead(const MemoryRange& range) {
    return Ask({.basis = AccessBasis::kProven, .reads = {range}, .writes = {}});
  }
  Verdict AskWrite(const MemoryRange& range) {
    return Ask({.basis = AccessBasis::kProven, .reads = {}, .writes = {range}});
  }
  Verdict AskRelease(const MemoryRange& range) {
    return Ask({.basis = AccessBasis::kProven, .reads = {}, .writes = {range}},
               true);
  }
  [[nodiscard]] bool IsLoaded(std::size_t i) const {
    return std::memcmp(reinterpret_cast<const void*>(addresses_[i]),
                       content_[i].data(), content_[i].size()) == 0;
  }

  TestDir dir_{"lazy_load"};
  TestSession files_{dir_.path(), kChunk};
  std::vector<Allocation> allocations_;
  std::vector<std::uint64_t> addresses_;
  std::vector<Bytes> content_;
  Bytes memory_;
  GatedDevice device_;
  Bell wakes_;
  Bell ended_;
  std::unique_ptr<LazyLoad> load_;
};

TEST_F(LazyLoadTest, TheLatestUsedComesFirstAndUnknownLast) {
  WriteImage({{.chunks = 1},
              {.chunks = 2, .rank = 7},
              {.chunks = 1, .rank = 2},
              {.chunks = 1}});
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(load_->LoadEager().ok());
  Begin();
  device_.Allow(5);
  ASSERT_TRUE(ended_.Await(1));
  EXPECT_EQ(device_.AwaitBegun(5),
            (std::vector<DeviceAddress>{addresses_[2], addresses_[1],
                                        addresses_[1] + kChunk, addresses_[0],
                                        addresses_[3]}));
  for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(IsLoaded(i)) << i;
  const LazyLoad::Progress progress = load_->progress();
  EXPECT_TRUE(progress.ended && progress.status.ok());
  EXPECT_EQ(progress.loaded_bytes, 5u * kChunk);
  EXPECT_EQ(progress.total_bytes, 5u * kChunk);
}

TEST_F(LazyLoadTest, AProvenCallWaitsForItsAllocationWhichComesNext) {
  WriteImage({{.chunks = 3}, {.chunks = 2}, {.chunks = 2}});
  ASSERT_TRUE(Open().ok());
  Begin();
  device_.AwaitBegun(1);  // of the first, and stands still
  EXPECT_EQ(AskRead({memory_.size(), 0}), Verdict::kGo);
  EXPECT_EQ(AskWrite(Inside(2, 2 * kChunk - 1)), Verdict::kWait);
  device_.Allow(3);
  ASSERT_TRUE(wakes_.Await(1));
  EXPECT_TRUE(IsLoaded(2));
  EXPECT_EQ(AskWrite(Inside(2)), Verdict::kGo);
  const auto begun = device_.AwaitBegun(3);
  EXPECT_EQ(begun[1], addresses_[2]);
  EXPECT_EQ(begun[2], addresses_[2] + kChunk);
  EXPECT_EQ(AskRead(Inside(0)), Verdict::kWait);
  EXPECT_EQ(AskRead(Inside(1)), Verdict::kWait);
  // The byte behind an allocation is not its own.
  EXPECT_EQ(AskRead(Inside(2, 2 * kChunk)), Verdict::kGo);
}

TEST_F(LazyLoadTest, WhatIsGuessedOrUnknownWaitsForAll) {
  for (const AccessBasis basis :
       {AccessBasis::kGuessed, AccessBasis::kUnknown}) {
    SCOPED_TRACE(static_cast<int>(basis));
    load_.reset();
    allocations_.clear(), addresses_.clear(), content_.clear();
    WriteImage({{.chunks = 1}, {.chunks = 1}});
    ASSERT_TRUE(Open().ok());
    Begin();
    AccessSet set;
    set.basis = basis;
    if (basis == AccessBasis::kGuessed) set.writes = {Inside(0)};
    const int before = wakes_.rung();
    EXPECT_EQ(Ask(set), Verdict::kWait);
    device_.Allow(1);
    device_.AwaitBegun(2);
    EXPECT_EQ(Ask(set), Verdict::kWait);
    EXPECT_EQ(wakes_.rung(), before);
    device_.Allow(1);
    ASSERT_TRUE(wakes_.Await(before + 1));
    EXPECT_EQ(Ask(set), Verdict::kGo);
  }
}

TEST_F(LazyLoadTest, MemoryThatIsGivenBackIsLoadedNoFurther) {
  WriteImage({{.chunks = 4}, {.chunks = 1}});
  ASSERT_TRUE(Open().ok());
  Begin();
  device_.AwaitBegun(1);
  // A byte of it is being written: not yet.
  EXPECT_EQ(AskRelease(Whole(0)), Verdict::kWait);
  EXPECT_EQ(AskRelease(Whole(0)), Verdict::kWait);
  device_.Allow(1);
  ASSERT_TRUE(wakes_.Await(1));
  EXPECT_EQ(AskRelease(Whole(0)), Verdict::kGo);
  // What is there from now on is not the image's.
  std::memset(reinterpret_cast<void*>(addresses_[0]), 0x55, 4 * kChunk);
  EXPECT_EQ(AskWrite(Whole(0)), Verdict::kGo);
  device_.Allow(1000);
  ASSERT_TRUE(ended_.Await(1));
  EXPECT_TRUE(IsLoaded(1));
  for (std::size_t i = 0; i < 4 * kChunk; ++i) {
    ASSERT_EQ(memory_[i], std::byte{0x55}) << i;
  }
  EXPECT_EQ(device_.AwaitBegun(2).size(), 2u);
  EXPECT_EQ(load_->progress().loaded_bytes, load_->progress().total_bytes);
}

TEST_F(LazyLoadTest, TheReleaseOfAllThatIsLeftEndsTheLoad) {
  WriteImage({{.chunks = 2}, {.chunks = 2}});
  // The limit keeps the loader from beginning the second piece.
  ASSERT_TRUE(Open({.bytes_per_second = 1, .threads = 1}).ok());
  device_.Allow(1);
  Begin();
  device_.AwaitBegun(1);
  EXPECT_EQ(AskRelease(Whole(1)), Verdict::kGo);
  while (AskRelease(Whole(0)) != Verdict::kGo) ASSERT_TRUE(wakes_.Await(1));
  ASSERT_TRUE(ended_.Await(1));
  EXPECT_EQ(Ask({}), Verdict::kGo);
}

TEST_F(LazyLoadTest, MappingsOfOneMemoryAreLoadedTogetherAndNotDropped) {
  WriteImage(
      {{.chunks = 1, .shared = 9}, {.chunks = 1, .shared = 9}, {.chunks = 1}});
  ASSERT_TRUE(Open().ok());
  Begin();
  device_.AwaitBegun(1);
  EXPECT_EQ(AskRead(Inside(0)), Verdict::kWait);
  // It may be mapped there, too, by now.
  EXPECT_EQ(AskRead({addresses_[2] + kChunk, 1}), Verdict::kWait);
  EXPECT_EQ(AskRelease(Whole(0)), Verdict::kWait);
  device_.Allow(1);
  device_.AwaitBegun(2);
  EXPECT_EQ(AskRelease(Whole(0)), Verdict::kWait);
  device_.Allow(1);
  ASSERT_TRUE(wakes_.Await(1));
  EXPECT_TRUE(IsLoaded(0) && IsLoaded(1));
  EXPECT_EQ(AskRelease(Whole(0)), Verdict::kGo);
  EXPECT_EQ(AskRead({addresses_[2] + kChunk, 1}), Verdict::kGo);
  EXPECT_EQ(AskRead(Inside(2)), Verdict::kWait);
}

TEST_F(LazyLoadTest, EagerMemoryIsThereBeforeItBegins) {
  WriteImage({{.chunks = 2}, {.chunks = 3, .eager = true}, {.chunks = 1}});
  ASSERT_TRUE(Open({.bytes_per_second = 1, .threads = 3}).ok());
  ASSERT_TRUE(load_->LoadEager().ok());
  EXPECT_TRUE(IsLoaded(1));
  EXPECT_FALSE(load_->progress().ended);
}

TEST_F(LazyLoadTest, ZerosNeedNoLoading) {
  WriteImage({{.chunks = 5, .zeros = true}});
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(load_->LoadEager().ok());
  Begin();
  ASSERT_TRUE(ended_.Await(1));
  EXPECT_EQ(AskRead(Whole(0)), Verdict::kGo);
  EXPECT_EQ(load_->progress().total_bytes, 0u);
}

TEST_F(LazyLoadTest, ADamagedChunkEndsItAndNothingThatNeedsItGoes) {
  WriteImage({{.chunks = 1, .rank = 1}, {.chunks = 2, .rank = 2}});
  const UniqueFd pack = *OpenFile(files_.pack_path(), O_RDWR);
  const std::uint64_t bytes = *FileSize(files_.pack_path());
  Bytes last(1);
  ASSERT_TRUE(PreadFull(pack.get(), last, bytes - 1, "pack").ok());
  last[0] ^= std::byte{1};
  ASSERT_TRUE(PwriteFull(pack.get(), last, bytes - 1, "pack").ok());
  ASSERT_TRUE(Open().ok());
  device_.Allow(1000);
  Begin();
  ASSERT_TRUE(ended_.Await(1));
  const LazyLoad::Progress progress = load_->progress();
  EXPECT_TRUE(progress.ended);
  EXPECT_EQ(progress.status.code(), Code::kCorrupt)
      << progress.status.ToString();
  EXPECT_EQ(AskRead(Inside(1)), Verdict::kWait);
  EXPECT_EQ(Ask({}), Verdict::kWait);
}

TEST_F(LazyLoadTest, AChunkOutsideItsPackIsFoundBeforeAnythingBegins) {
  WriteImage({{.chunks = 4}});
  const std::uint64_t bytes = *FileSize(files_.pack_path());
  ASSERT_EQ(::truncate(files_.pack_path().c_str(),
                       static_cast<off_t>(bytes - kChunk)),
            0);
  EXPECT_EQ(Open().code(), Code::kCorrupt);
}

TEST_F(LazyLoadTest, NothingIsWrittenAfterStop) {
  WriteImage({{.chunks = 40}});
  ASSERT_TRUE(Open({.threads = 3}).ok());
  device_.Allow(7);
  Begin();
  device_.AwaitBegun(8);
  std::thread allow([this] { device_.Allow(1'000'000); });
  load_->Stop();
  allow.join();
  const std::size_t begun = device_.AwaitBegun(8).size();
  EXPECT_FALSE(load_->progress().ended && begun < 40);
  const Bytes then = memory_;
  EXPECT_EQ(device_.AwaitBegun(8).size(), begun);
  EXPECT_TRUE(memory_ == then);
  EXPECT_EQ(AskRead(Inside(0)), begun < 40 ? Verdict::kWait : Verdict::kGo);
}

TEST_F(LazyLoadTest, ManyThreadsLoadEverythingWhileCallsComeAndGo) {
  std::vector<Allocation> many;
  for (std::uint32_t i = 0; i < 60; ++i) {
    many.push_back({.chunks = 1 + i % 3, .rank = i * 7 % 11});
  }
  WriteImage(many);
  ASSERT_TRUE(Open({.threads = 4}).ok());
  device_.Allow(1'000'000);
  Begin();
  for (std::size_t i = 0; i < many.size(); ++i) {
    const std::size_t at = (i * 37) % many.size();
    const bool release = at % 5 == 0;
    int heard = wakes_.rung();
    while ((release ? AskRelease(Whole(at)) : AskWrite(Whole(at))) ==
           Verdict::kWait) {
      ASSERT_TRUE(wakes_.Await(heard + 1));
      heard = wakes_.rung();
    }
    EXPECT_TRUE(release || IsLoaded(at)) << at;
    // Its owner writes to it: nobody else may.
    std::memset(reinterpret_cast<void*>(addresses_[at]), 0x77,
                content_[at].size());
  }
  ASSERT_TRUE(ended_.Await(1));
  for (std::size_t i = 0; i < many.size(); ++i) {
    const auto* at = reinterpret_cast<const std::byte*>(addresses_[i]);
    EXPECT_TRUE(std::all_of(at, at + content_[i].size(), [](std::byte b) {
      return b == std::byte{0x77};
    })) << i;
  }
}

}  // namespace
}  // namespace pos::ckpt
