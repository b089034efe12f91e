// What a watch is told of each kind of call.
#include <cuda.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/client_kernels.h"
#include "tests/support/recording_watch.h"
#include "tests/support/session_client.h"
#include "tests/support/sim_session.h"

namespace pos {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kGranule = Device::kMapGranularity;

// nothing(word, pointers by value): touches nothing, though its code cannot
//   tell: it follows a pointer in memory, if ever.
// store(to, from, words): to[i] = from[n] for the thread i.
// indirect(): calls nobody knows what, if ever.
// take(): takes from the heap of device-side malloc.
constexpr std::string_view kKernels = R"(.version 8.0
.target sm_90
.address_size 64
.extern .func (.param .b64 r) malloc(.param .b64 n);
.global .align 8 .b8 state[4096];
.const .align 8 .b8 table[256];
.visible .entry nothing(.param .u32 word, .param .align 4 .b8 packed[40]) {
  .reg .pred %p<2>;
  .reg .b32 %r<2>;
  .reg .b64 %d<3>;
  mov.u32 %r1, %tid.x;
  setp.gt.u32 %p1, %r1, 2000;
  @%p1 ld.global.u64 %d1, [state];
  @%p1 st.global.u64 [%d1], %d2;
  ret;
}
.visible .entry store(.param .u64 to, .param .u64 from, .param .u32 n) {
  .reg .b32 %r<4>;
  .reg .b64 %d<8>;
  ld.param.u64 %d1, [to];
  ld.param.u64 %d2, [from];
  ld.param.u32 %r1, [n];
  mul.wide.s32 %d3, %r1, 4;
  add.s64 %d4, %d2, %d3;
  ld.global.u32 %r2, [%d4];
  mov.u32 %r3, %tid.x;
  mul.wide.u32 %d5, %r3, 4;
  add.s64 %d6, %d1, %d5;
  st.global.u32 [%d6], %r2;
  st.global.u32 [state+8], %r2;
  ret;
}
.func f() { ret; }
.visible .entry indirect() {
  .reg .pred %p<2>;
  .reg .b32 %r<2>;
  .reg .b64 %d<2>;
  mov.u32 %r1, %tid.x;
  setp.gt.u32 %p1, %r1, 2000;
  mov.u64 %d1, f;
P: .callprototype _ ();
  @%p1 call %d1, (), P;
  ret;
}
.visible .entry take() {
  .reg .b64 %d<3>;
  mov.u64 %d1, 16;
  {
    .param .b64 n;
    st.param.b64 [n], %d1;
    .param .b64 r;
    call.uni (r), malloc, (n);
  }
  ret;
}
)";

using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

Ranges Sorted(const std::vector<MemoryRange>& ranges) {
  Ranges out;
  for (const MemoryRange& r : ranges) out.emplace_back(r.address, r.bytes);
  std::sort(out.begin(), out.end());
  return out;
}

class CallAccessTest : public ::testing::Test {
 protected:
  using Asked = RecordingWatch::Asked;

  CallAccessTest() {
    EXPECT_TRUE(session_->Quiesce(Deadline::AfterMs(20000)).ok());
    session_->SetWatch(&watch_);
    session_->Resume();
    context_ = client_.MakeContext();
  }
  ~CallAccessTest() override { session_.session().Destroy(); }

  // All that was asked since the last time, once all calls were executed.
  std::vector<Asked> Take() {
    EXPECT_EQ(client_.Sync(context_.stream), 0);
    return watch_.Take();
  }
  Asked TakeOne() {
    std::vector<Asked> all = Take();
    EXPECT_EQ(all.size(), 1u);
    return all.empty() ? Asked() : all[0];
  }
  // A block and what was said of its making.
  std::uint64_t Alloc(std::uint64_t bytes) {
    const std::uint64_t block = client_.Alloc(context_, bytes);
    const Asked asked = TakeOne();
    EXPECT_TRUE(asked.makes);
    EXPECT_EQ(asked.set.basis, AccessBasis::kProven);
    EXPECT_EQ(asked.set.writes.at(0).address, block);
    EXPECT_GE(asked.set.writes[0].bytes, bytes);
    return block;
  }
  void ExpectReleased(const Asked& asked, const Ranges& ranges) {
    EXPECT_TRUE(asked.releases);
    EXPECT_FALSE(asked.makes);
    EXPECT_EQ(asked.set.basis, AccessBasis::kProven);
    EXPECT_EQ(Sorted(asked.set.writes), ranges);
  }
  std::uint64_t LoadModule() {
    return pos::LoadModule(&client_, context_, kKernels);
  }
  std::uint64_t Function(std::uint64_t module, std::string_view name) {
    return FindFunction(&client_, module, name);
  }
  cuda::ModuleGlobalOut Global(std::uint64_t module, std::string_view name) {
    EXPECT_EQ(client_.Call(cuda::ModuleGlobalArgs{.module = module},
                           {.inline_data = std::as_bytes(std::span(name))}),
              0);
    return client_.Result<cuda::ModuleGlobalOut>();
  }
  void Launch(std::uint64_t function, std::span<const std::byte> params) {
    PostLaunch(&client_, context_.stream, function, 1, 1, params);
  }
  std::uint64_t Reserve(std::uint64_t bytes) {
    EXPECT_EQ(client_.Call(cuda::AddressReserveArgs{.bytes = bytes,
                                                    .alignment = 0,
                                                    .address = 0,
                                                    .device = 0,
                                                    .reserved = 0}),
              0);
    return client_.Result<cuda::AddressReserveOut>().address;
  }
  std::uint64_t MakePhysical() {
    EXPECT_EQ(client_.Call(cuda::PhysicalCreateArgs{
                  .bytes = kGranule, .device = 0, .reserved = 0}),
              0);
    return client_.Result<cuda::PhysicalCreateOut>().physical;
  }
  void MapAt(std::uint64_t address, std::uint64_t physical) {
    EXPECT_EQ(client_.Call(cuda::PhysicalMapArgs{
                  .address = address, .bytes = kGranule, .physical = physical}),
              0);
    EXPECT_EQ(
        client_.Call(cuda::SetAccessArgs{
            .address = address, .bytes = kGranule, .device = 0, .allowed = 1}),
        0);
    const Asked asked = TakeOne();
    EXPECT_TRUE(asked.makes);
    EXPECT_EQ(Sorted(asked.set.writes), (Ranges{{address, kGranule}}));
  }
  cuda::FillArgs Fill(std::uint64_t dst, std::uint64_t count,
                      std::uint64_t rows, std::uint64_t pitch) {
    return {.stream = context_.stream,
            .dst = dst,
            .count = count,
            .rows = rows,
            .pitch = pitch,
            .value = 1,
            .width = 2};
  }

  SimSession session_{1};
  SessionClient client_{session_.ring()};
  RecordingWatch watch_;
  SessionClient::Context context_;
};

TEST_F(CallAccessTest, CopiesNameWhatIsDeviceMemory) {
  const std::uint64_t a = Alloc(kMiB);
  const std::uint64_t b = Alloc(kMiB);
  ASSERT_EQ(
      client_.Call(cuda::HostAllocArgs{.context = context_.id, .bytes = kMiB}),
      0);
  const auto host = client_.Result<cuda::HostAllocOut>().address;
  EXPECT_TRUE(Take().empty()) << "pinned memory is the host's";

  client_.CopyIn(context_.stream, a + 10, std::vector<std::byte>(100));
  Asked asked = TakeOne();
  EXPECT_EQ(asked.what, "CopyToDevice");
  EXPECT_TRUE(asked.has_stream);
  EXPECT_FALSE(asked.releases || asked.makes);
  EXPECT_EQ(asked.set.basis, AccessBasis::kProven);
  EXPECT_EQ(Sorted(asked.set.writes), (Ranges{{a + 10, 100}}));
  EXPECT_TRUE(asked.set.reads.empty());
  client_.CopyOut(context_.stream, b + 7, 5000);
  asked = TakeOne();
  EXPECT_EQ(Sorted(asked.set.reads), (Ranges{{b + 7, 5000}}));
  EXPECT_TRUE(asked.set.writes.empty());

  const auto copy = [&](std::uint64_t dst, std::uint64_t src) {
    client_.Post(cuda::CopyArgs{
        .stream = context_.stream, .dst = dst, .src = src, .bytes = 64});
  };
  copy(b + 1, a + 2);
  asked = TakeOne();
  EXPECT_EQ(Sorted(asked.set.reads), (Ranges{{a + 2, 64}}));
  EXPECT_EQ(Sorted(asked.set.writes), (Ranges{{b + 1, 64}}));
  copy(host, a);
  asked = TakeOne();
  EXPECT_EQ(Sorted(asked.set.reads), (Ranges{{a, 64}}));
  EXPECT_TRUE(asked.set.writes.empty());
  copy(b, host);
  asked = TakeOne();
  EXPECT_TRUE(asked.set.reads.empty());
  EXPECT_EQ(Sorted(asked.set.writes), (Ranges{{b, 64}}));
  copy(host + 100, host);
  EXPECT_TRUE(Take().empty());
}

TEST_F(CallAccessTest, FillsNameTheirRows) {
  const std::uint64_t a = Alloc(16 * kMiB);
  client_.Post(Fill(a + 4, 100, 5, 1000));
  EXPECT_EQ(Sorted(TakeOne().set.writes), (Ranges{{a + 4, 4200}}))
      << "rows close to each other are one range";
  client_.Post(Fill(a, 100, 3, 2 * kMiB));
  EXPECT_EQ(Sorted(TakeOne().set.writes),
            (Ranges{{a, 200}, {a + 2 * kMiB, 200}, {a + 4 * kMiB, 200}}));
  client_.Post(Fill(a, 100, 120, 100000));
  EXPECT_EQ(Sorted(TakeOne().set.writes), (Ranges{{a, 119 * 100000 + 200}}))
      << "bounded";
}

TEST_F(CallAccessTest, LaunchesAreGuessedFromTheirParameters) {
  const std::uint64_t a = Alloc(kMiB);
  const std::uint64_t b = Alloc(3 * kMiB);
  const std::uint64_t c = Alloc(kMiB);
  const std::uint64_t module = LoadModule();
  const std::uint64_t nothing = Function(module, "nothing");
  const cuda::ModuleGlobalOut state = Global(module, "state");
  const cuda::ModuleGlobalOut table = Global(module, "table");
  const std::uint64_t event = client_.MakeEvent(context_);
  client_.Post(
      cuda::EventRecordArgs{.event = event, .stream = context_.stream});
  EXPECT_TRUE(Take().empty()) << "they touch no memory";

  // Pointers at an offset of 4, into the middle; one that ends just outside.
  std::vector<std::byte> params(44);
  const std::uint64_t in_b = b + 2 * kMiB + 17;
  const std::uint64_t outside = c + 512 * kMiB;
  std::memcpy(params.data() + 4, &in_b, 8);
  std::memcpy(params.data() + 12, &b, 8);
  std::memcpy(params.data() + 20, &outside, 8);
  std::memcpy(params.data() + 36, &a, 8);
  Launch(nothing, params);
  const Asked asked = TakeOne();
  EXPECT_EQ(asked.what, "nothing");
  EXPECT_TRUE(asked.has_stream);
  EXPECT_EQ(asked.set.basis, AccessBasis::kGuessed);
  EXPECT_TRUE(asked.set.reads.empty());
  const Ranges writes = Sorted(asked.set.writes);
  const auto covers = [&](std::uint64_t address, std::uint64_t bytes) {
    return std::any_of(writes.begin(), writes.end(), [&](const auto& range) {
      return range.first <= address &&
             address + bytes <= range.first + range.second;
    });
  };
  EXPECT_TRUE(covers(a, kMiB));
  EXPECT_TRUE(covers(b, 3 * kMiB));
  EXPECT_FALSE(covers(c, 1));
  EXPECT_TRUE(covers(state.address, state.bytes));
  EXPECT_FALSE(covers(table.address, table.bytes)) << "constant";
  EXPECT_EQ(writes.size(), 3u) << "each once";
}

TEST_F(CallAccessTest, LaunchesAreProvenFromTheirCode) {
  const std::uint64_t a = Alloc(kMiB);
  const std::uint64_t b = Alloc(kMiB);
  const std::uint64_t module = LoadModule();
  const std::uint64_t store = Function(module, "store");
  const std::uint64_t indirect = Function(module, "indirect");
  const cuda::ModuleGlobalOut state = Global(module, "state");
  Take();
  struct {
    std::uint64_t to;
    std::uint64_t from;
    std::int32_t n;
    std::int32_t unused;
  } params{a + 64, b, 100, 0};
  const std::span<const std::byte> bytes =
      std::as_bytes(std::span(&params, 1)).first(20);
  Launch(store, bytes);
  const Asked asked = TakeOne();
  EXPECT_EQ(asked.set.basis, AccessBasis::kProven);
  EXPECT_EQ(Sorted(asked.set.reads), (Ranges{{b + 400, 4}}));
  EXPECT_EQ(Sorted(asked.set.writes),
            (Ranges{{std::min(a + 64, state.address + 8), 4},
                    {std::max(a + 64, state.address + 8), 4}}));
  Launch(indirect, {});
  EXPECT_EQ(TakeOne().set.basis, AccessBasis::kUnknown);
}

TEST_F(CallAccessTest, TheHeapIsWrittenOnceAKernelMayUseIt) {
  const std::uint64_t module = LoadModule();
  const std::uint64_t nothing = Function(module, "nothing");
  const std::uint64_t take = Function(module, "take");
  Take();
  // It can be placed anew as long as no kernel has used it.
  for (const std::uint64_t bytes : {4 * kMiB, 6 * kMiB}) {
    ASSERT_EQ(
        client_.Call(cuda::CtxSetLimitArgs{.context = context_.id,
                                           .value = bytes,
                                           .limit = CU_LIMIT_MALLOC_HEAP_SIZE,
                                           .reserved = 0}),
        0);
    const Asked asked = TakeOne();
    EXPECT_TRUE(asked.releases);
    ASSERT_EQ(asked.set.writes.size(), 1u);
    EXPECT_GE(asked.set.writes[0].bytes, 4 * kMiB);
  }
  const std::vector<std::byte> params(44);
  const auto heaps = [](const Asked& asked) {
    return std::count_if(
        asked.set.writes.begin(), asked.set.writes.end(),
        [](const MemoryRange& range) { return range.bytes >= 6 * kMiB; });
  };
  Launch(nothing, params);
  EXPECT_EQ(heaps(TakeOne()), 0);
  Launch(take, {});
  EXPECT_EQ(heaps(TakeOne()), 1);
  Launch(nothing, params);
  EXPECT_EQ(heaps(TakeOne()), 1) << "it may have been given a pointer";
  EXPECT_NE(
      client_.Call(cuda::CtxSetLimitArgs{.context = context_.id,
                                         .value = kMiB,
                                         .limit = CU_LIMIT_MALLOC_HEAP_SIZE,
                                         .reserved = 0}),
      0);
  EXPECT_TRUE(Take().empty()) << "the limit is fixed now";
}

TEST_F(CallAccessTest, WhatIsGivenBackIsNamed) {
  const std::uint64_t a = Alloc(4 * kMiB);
  const std::uint64_t b = Alloc(6 * kMiB);
  const std::uint64_t c = Alloc(8 * kMiB);
  EXPECT_EQ(client_.Call(cuda::MemFreeArgs{.address = a}), 0);
  Asked asked = TakeOne();
  EXPECT_FALSE(asked.has_stream);
  ExpectReleased(asked, {{a, 4 * kMiB}});
  EXPECT_EQ(client_.Call(cuda::MemFreeAsyncArgs{.stream = context_.stream,
                                                .address = b}),
            0);
  asked = TakeOne();
  EXPECT_TRUE(asked.has_stream);
  ExpectReleased(asked, {{b, 6 * kMiB}});

  const std::uint64_t module = LoadModule();
  const cuda::ModuleGlobalOut state = Global(module, "state");
  EXPECT_EQ(client_.Call(cuda::ModuleUnloadArgs{.module = module}), 0);
  asked = TakeOne();
  EXPECT_TRUE(asked.releases);
  EXPECT_EQ(asked.set.writes.size(), 2u);
  EXPECT_TRUE(std::any_of(
      asked.set.writes.begin(), asked.set.writes.end(),
      [&](const MemoryRange& r) { return r.address == state.address; }));

  EXPECT_EQ(client_.Call(cuda::CtxDestroyArgs{.context = context_.id}), 0);
  const std::vector<Asked> all = watch_.Take();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_TRUE(all[0].releases);
  // The block, and the heap that the module brought along.
  ASSERT_EQ(all[0].set.writes.size(), 2u);
  EXPECT_EQ(Sorted(all[0].set.writes)[0], std::pair(c, 8 * kMiB));
}

TEST_F(CallAccessTest, AccessThatIsTakenAwayIsNamed) {
  const std::uint64_t base = Reserve(2 * kGranule);
  MapAt(base, MakePhysical());
  MapAt(base + kGranule, MakePhysical());
  const auto set = [&](std::uint64_t address, std::uint64_t bytes,
                       std::uint32_t allowed) {
    EXPECT_EQ(client_.Call(cuda::SetAccessArgs{.address = address,
                                               .bytes = bytes,
                                               .device = 0,
                                               .allowed = allowed}),
              0);
  };
  set(base, kGranule, 0);
  ExpectReleased(TakeOne(), {{base, kGranule}});
  set(base, 2 * kGranule, 0);
  ExpectReleased(TakeOne(), {{base + kGranule, kGranule}});
  set(base, 2 * kGranule, 0);
  set(base, 2 * kGranule, 1);
  EXPECT_TRUE(Take().empty()) << "nothing can be read less than before";
}

TEST_F(CallAccessTest, MemoryMappedTwiceIsNamedAtBothAddresses) {
  const std::uint64_t base = Reserve(4 * kGranule);
  const std::uint64_t p = MakePhysical();
  const std::uint64_t q = MakePhysical();
  EXPECT_TRUE(Take().empty());
  MapAt(base, p);
  MapAt(base + kGranule, q);
  client_.Post(Fill(base, 50, 1, 0));
  EXPECT_EQ(Sorted(TakeOne().set.writes), (Ranges{{base, 100}}));
  MapAt(base + 3 * kGranule, p);
  client_.Post(Fill(base + 10, 50, 1, 0));
  EXPECT_EQ(Sorted(TakeOne().set.writes),
            (Ranges{{base + 10, 100}, {base + 3 * kGranule + 10, 100}}));
  // From the other side, and as a source.
  client_.Post(Fill(base + 4 * kGranule - 100, 50, 1, 0));
  EXPECT_EQ(
      Sorted(TakeOne().set.writes),
      (Ranges{{base + kGranule - 100, 100}, {base + 4 * kGranule - 100, 100}}));
  client_.Post(cuda::CopyArgs{.stream = context_.stream,
                              .dst = base + kGranule,
                              .src = base + 3 * kGranule + 5,
                              .bytes = 10});
  const Asked copied = TakeOne();
  EXPECT_EQ(Sorted(copied.set.writes), (Ranges{{base + kGranule, 10}}));
  EXPECT_EQ(Sorted(copied.set.reads),
            (Ranges{{base + 5, 10}, {base + 3 * kGranule + 5, 10}}));

  // A kernel that is given a part of a grown array may use all of it.
  const std::uint64_t nothing = Function(LoadModule(), "nothing");
  std::vector<std::byte> params(44);
  const std::uint64_t inside = base + kGranule + 100;
  std::memcpy(params.data() + 4, &inside, 8);
  Launch(nothing, params);
  const Ranges writes = Sorted(TakeOne().set.writes);
  EXPECT_TRUE(
      std::count(writes.begin(), writes.end(), std::pair(base, 2 * kGranule)));
  EXPECT_TRUE(std::count(writes.begin(), writes.end(),
                         std::pair(base + 3 * kGranule, kGranule)));

  EXPECT_EQ(client_.Call(cuda::PhysicalUnmapArgs{.address = base,
                                                 .bytes = 2 * kGranule}),
            0);
  ExpectReleased(TakeOne(), {{base, kGranule}, {base + kGranule, kGranule}});
  client_.Post(Fill(base + 3 * kGranule, 50, 1, 0));
  EXPECT_EQ(Sorted(TakeOne().set.writes), (Ranges{{base + 3 * kGranule, 100}}))
      << "its alias has gone";
}

}  // namespace
}  // namespace pos
