// Sessions that work while their memory is loaded, against a model.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "ckpt/engine/session_load.h"
#include "ckpt/engine/session_save.h"
#include "pos/base/clock.h"
#include "tests/ckpt/pack/session_fixture.h"
#include "tests/support/client_kernels.h"
#include "tests/support/session_client.h"
#include "tests/support/sim_session.h"

namespace pos::ckpt {
namespace {

constexpr std::uint32_t kChunk = 64 << 10;
constexpr std::uint64_t kMemory = 256 << 20;
// Total of an image: 8 MiB. Slow enough that the first calls come first.
constexpr std::uint64_t kSlow = 8 << 20;
using Model = std::map<std::uint64_t, Bytes>;  // allocations by address

// mix: to[i] = 5 * to[i] + from[i], which is proven.
// follow: the word that a pointer in memory points to is increased by `value`,
//   which is not.
constexpr std::string_view kKernels = R"(
.version 8.0
.target sm_90
.address_size 64
.visible .entry mix(.param .u64 to, .param .u64 from, .param .u32 words) {
  .reg .pred %p;
  .reg .b32 %r<8>;
  .reg .b64 %d<8>;
  ld.param.u64 %d1, [to];
  ld.param.u64 %d2, [from];
  ld.param.u32 %r1, [words];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p, %r5, %r1;
  @%p ret;
  mul.wide.u32 %d3, %r5, 4;
  add.s64 %d4, %d1, %d3;
  add.s64 %d5, %d2, %d3;
  ld.global.u32 %r6, [%d4];
  ld.global.u32 %r7, [%d5];
  mad.lo.s32 %r6, %r6, 5, %r7;
  st.global.u32 [%d4], %r6;
  ret;
}
.visible .entry follow(.param .u64 where, .param .u32 value) {
  .reg .b32 %r<3>;
  .reg .b64 %d<2>;
  ld.param.u64 %d1, [where];
  ld.param.u32 %r1, [value];
  ld.global.u64 %d1, [%d1];
  ld.global.u32 %r2, [%d1];
  add.u32 %r2, %r2, %r1;
  st.global.u32 [%d1], %r2;
  ret;
}
)";

Status Save(Session* session, const TestSession& files) {
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<SessionSave> save,
                       SessionSave::Create(session, files.MakeFiles(), {}));
  const std::atomic<bool> cancel{false};
  POS_RETURN_IF_ERROR(save->CopyAtCut(&cancel));
  POS_RETURN_IF_ERROR(save->CopyHost(&cancel));
  return save->Finish();
}

// A session that is not started.
class Restored {
 public:
  explicit Restored(const SessionOptions& options)
      : arena_(*ReservedRange::At(options.layout.arena_base,
                                  options.layout.arena_bytes)) {
    sim::SimOptions sim;
    sim.memory_bytes = kMemory;
    sim.compute_threads = 1;
    sim.arena_base = options.layout.PartBase(0);
    sim.arena_bytes = options.layout.PartBytes();
    device_ = std::move(*sim::NewSimDevice(sim));
    session_ = std::make_unique<pos::TestSession>(
        options, std::vector<Device*>{device_.get()});
  }
  ~Restored() {
    if (load_ != nullptr) load_->Stop();
    session_->Destroy();
  }
  Status Load(const TestSession& from, const LazyLoadOptions& options) {
    SessionLoadFiles files;
    POS_ASSIGN_OR_RETURN(files.index, OpenFile(from.index_path(), O_RDONLY));
    POS_ASSIGN_OR_RETURN(UniqueFd pack, OpenFile(from.pack_path(), O_RDONLY));
    files.packs.emplace_back(from.pack_id(), std::move(pack));
    POS_ASSIGN_OR_RETURN(
        load_, LoadSessionLazily(session(), std::move(files), options));
    // What the image holds was not taken from this ledger.
    EXPECT_EQ(session_->ledger().Take(0, session()->TakenBytes(0)),
              MemoryLedger::Answer::kGranted);
    session()->SetWatch(load_.get());
    load_->Begin({.wake = [this] { session()->Wake(); }, .ended = [] {}});
    session()->Start();
    return {};
  }
  Session* session() { return &**session_; }
  LazyLoad* load() { return load_.get(); }

 private:
  const ReservedRange arena_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<LazyLoad> load_;
  std::unique_ptr<pos::TestSession> session_;
};

class LazySession : public ::testing::TestWithParam<int> {
 protected:
  // An image of a session with allocations of several sizes.
  void MakeImage() {
    SimSession session(options_, kMemory, 1 << 30);
    SessionClient client(session.ring());
    context_ = client.MakeContext();
    for (std::uint64_t i = 0; i < 24; ++i) {
      const std::uint64_t bytes = 1 + (i * i * 7919) % (700 << 10);
      const std::uint64_t address = client.Alloc(context_, bytes);
      model_[address] = i % 6 == 5 ? Bytes(bytes) : Noise(bytes, i + 1);
      client.CopyIn(context_.stream, address, model_[address]);
    }
    const std::uint64_t module = LoadModule(&client, context_, kKernels);
    mix_ = FindFunction(&client, module, "mix");
    follow_ = FindFunction(&client, module, "follow");
    // The pointer lies in one that is loaded early, what it points to does not.
    pointer_ = client.Alloc(context_, 8);
    const std::uint64_t target = model_.rbegin()->first;
    const auto bytes = std::as_bytes(std::span(&target, 1));
    model_[pointer_] = Bytes(bytes.begin(), bytes.end());
    client.CopyIn(context_.stream, pointer_, bytes);
    ASSERT_EQ(client.Sync(context_.stream), 0);
    ASSERT_TRUE(session->Quiesce(Deadline::AfterMs(20000)).ok());
    const Status saved = Save(&*session.session(), files_);
    ASSERT_TRUE(saved.ok()) << saved.ToString();
  }

  // One call that a program could make next.
  void Step(SessionClient* client, std::mt19937_64* random) {
    const auto any = [random](std::uint64_t below) {
      return (*random)() % below;
    };
    if (model_.empty() || any(5) == 0) {
      const std::uint64_t bytes = 1 + any(300 << 10);
      // Memory that was another allocation's before is as that left it.
      const std::uint64_t address = client->Alloc(context_, bytes);
      model_[address] = Noise(bytes, (*random)());
      client->CopyIn(context_.stream, address, model_[address]);
      return;
    }
    auto it = model_.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(any(model_.size())));
    auto& [address, bytes] = *it;
    const std::uint64_t at = any(bytes.size());
    const std::uint64_t count = 1 + any(bytes.size() - at);
    switch (any(8)) {
      case 4:
      case 5:
      case 6:
      case 7: {
        auto from = model_.begin();
        std::advance(from, static_cast<std::ptrdiff_t>(any(model_.size())));
        return Mix(client, it, from);
      }
      case 0:
        ASSERT_EQ(client->Call(cuda::MemFreeArgs{.address = address}), 0);
        model_.erase(it);
        return;
      case 1: {
        const Bytes fresh = Noise(count, (*random)());
        client->CopyIn(context_.stream, address + at, fresh);
        std::copy(fresh.begin(), fresh.end(),
                  bytes.begin() + static_cast<std::ptrdiff_t>(at));
        return;
      }
      case 2:
        client->Post(cuda::FillArgs{.stream = context_.stream,
                                    .dst = address + at,
                                    .count = count,
                                    .rows = 1,
                                    .pitch = 0,
                                    .value = 0x5a,
                                    .width = 1});
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), count,
                    std::byte{0x5a});
        return;
      default:
        Compare(client, address + at, std::span(bytes).subspan(at, count));
    }
  }
  static std::uint32_t WordAt(const Bytes& bytes, std::uint64_t at) {
    std::uint32_t word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof(word));
    return word;
  }
  // to[i] = 5 * to[i] + from[i], here and there.
  void Mix(SessionClient* client, Model::iterator to, Model::iterator from) {
    constexpr std::uint32_t kThreads = 64;
    struct Params {
      std::uint64_t to, from;
      std::uint32_t words;
    };
    const auto words = static_cast<std::uint32_t>(std::min<std::uint64_t>(
        2000, std::min(to->second.size(), from->second.size()) / 4));
    if (words == 0) return;
    const Params params{to->first, from->first, words};
    PostLaunch(client, context_.stream, mix_, (words + kThreads - 1) / kThreads,
               kThreads,
               std::as_bytes(std::span(&params, 1)).first(sizeof(params) - 4));
    for (std::uint64_t at = 0; at < 4 * std::uint64_t{words}; at += 4) {
      const std::uint32_t word =
          5 * WordAt(to->second, at) + WordAt(from->second, at);
      std::memcpy(to->second.data() + at, &word, sizeof(word));
    }
  }
  void Compare(SessionClient* client, std::uint64_t address,
               std::span<const std::byte> want) {
    const std::vector<std::byte> got =
        client->CopyOut(context_.stream, address, want.size());
    ASSERT_TRUE(std::equal(got.begin(), got.end(), want.begin(), want.end()))
        << want.size() << " bytes at " << address;
  }

  const SessionOptions options_ = TestOptions(GetParam(), 40 + GetParam());
  TestDir dir_{"lazy_session"};
  TestSession files_{dir_.path(), kChunk};
  SessionClient::Context context_;
  Model model_;
  std::uint64_t mix_ = 0;
  std::uint64_t follow_ = 0;
  std::uint64_t pointer_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Threads, LazySession, ::testing::Values(1, 2, 3));

TEST_P(LazySession, WorksAsIfEverythingWereThere) {
  MakeImage();
  Restored restored(options_);
  const Status loaded =
      restored.Load(files_, {.bytes_per_second = kSlow, .threads = 2});
  ASSERT_TRUE(loaded.ok()) << loaded.ToString();
  SessionClient client(restored.session()->ring());
  std::mt19937_64 random(static_cast<std::uint64_t>(GetParam()));
  for (int i = 0; i < 150; ++i) Step(&client, &random);
  for (const auto& [address, bytes] : model_) {
    Compare(&client, address, bytes);
  }
  const Deadline deadline = Deadline::AfterMs(20000);
  Backoff backoff;
  while (!restored.load()->progress().ended && !deadline.Passed()) {
    backoff.Wait();
  }
  const LazyLoad::Progress progress = restored.load()->progress();
  EXPECT_TRUE(progress.ended && progress.status.ok())
      << progress.status.ToString();
  EXPECT_EQ(progress.loaded_bytes, progress.total_bytes);
  restored.session()->ReplaceWatch(nullptr);
  for (const auto& [address, bytes] : model_) {
    Compare(&client, address, bytes);
  }
}

// Nobody knows where its address comes from: it and what is behind it wait for
// everything.
TEST_P(LazySession, AKernelThatIsNotProvenFindsEverything) {
  MakeImage();
  Restored restored(options_);
  ASSERT_TRUE(
      restored.Load(files_, {.bytes_per_second = kSlow, .threads = 2}).ok());
  SessionClient client(restored.session()->ring());
  struct Params {
    std::uint64_t where;
    std::uint32_t value;
  };
  const Params params{pointer_, 77};
  PostLaunch(&client, context_.stream, follow_, 1, 1,
             std::as_bytes(std::span(&params, 1)).first(12));
  EXPECT_EQ(client.Sync(context_.stream), 0);
  const LazyLoad::Progress progress = restored.load()->progress();
  EXPECT_EQ(progress.loaded_bytes, progress.total_bytes);
  std::uint64_t target = 0;
  std::memcpy(&target, model_[pointer_].data(), sizeof(target));
  const std::uint32_t word = WordAt(model_[target], 0) + params.value;
  std::memcpy(model_[target].data(), &word, sizeof(word));
  for (const auto& [address, bytes] : model_) {
    Compare(&client, address, bytes);
  }
}

TEST_P(LazySession, EndsWhileCallsWait) {
  MakeImage();
  Restored restored(options_);
  ASSERT_TRUE(
      restored.Load(files_, {.bytes_per_second = 1, .threads = 2}).ok());
  SessionClient client(restored.session()->ring());
  for (const auto& [address, bytes] : model_) {
    client.Post(cuda::FillArgs{.stream = context_.stream,
                               .dst = address,
                               .count = 1,
                               .rows = 1,
                               .pitch = 0,
                               .value = 1,
                               .width = 1});
  }
}

// What it is a cut of does not matter: the calls that wait are pending.
TEST_P(LazySession, CallsThatWaitArePendingForACut) {
  MakeImage();
  Restored restored(options_);
  ASSERT_TRUE(
      restored.Load(files_, {.bytes_per_second = 1, .threads = 1}).ok());
  SessionClient client(restored.session()->ring());
  const std::uint64_t address = std::prev(model_.end())->first;
  // Loading takes for ever: all but one of the allocations are not there.
  for (int i = 0; i < 3; ++i) {
    for (const auto& [at, bytes] : model_) {
      client.Post(cuda::FillArgs{.stream = context_.stream,
                                 .dst = at,
                                 .count = 1,
                                 .rows = 1,
                                 .pitch = 0,
                                 .value = 1,
                                 .width = 1});
    }
  }
  ASSERT_NE(address, 0u);
  ASSERT_TRUE(restored.session()->Quiesce(Deadline::AfterMs(20000)).ok());
  EXPECT_GT(restored.session()->pending_calls(), 0u);
  restored.session()->Resume();
}

}  // namespace
}  // namespace pos::ckpt
