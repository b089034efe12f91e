// A session on a simulated device, saved by the engine while its client works,
// and loaded again: what the image holds has to be what was there at the cut.
#ifndef TESTS_CKPT_ENGINE_ENGINE_FIXTURE_H_
#define TESTS_CKPT_ENGINE_ENGINE_FIXTURE_H_

#include <cuda.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "ckpt/engine/session_load.h"
#include "ckpt/engine/session_save.h"
#include "ckpt/format/pack_header.h"
#include "tests/ckpt/engine/wrapped_device.h"
#include "tests/ckpt/testing.h"
#include "tests/support/client_kernels.h"
#include "tests/support/session_client.h"
#include "tests/support/test_session.h"

namespace pos::ckpt {

inline constexpr std::uint32_t kChunk = 64 << 10;

// store: one word at `address`. indirect: at the address that lies at `where`.
// raise, await: a flag, so that one kernel waits for another.
inline constexpr std::string_view kEngineKernels = R"(
.version 8.0
.target sm_90
.address_size 64
.visible .entry store(.param .u64 address, .param .u32 value) {
  .reg .u64 %a;
  .reg .u32 %v;
  ld.param.u64 %a, [address];
  ld.param.u32 %v, [value];
  st.global.u32 [%a], %v;
  ret;
}
.visible .entry indirect(.param .u64 where, .param .u32 value) {
  .reg .u64 %a;
  .reg .u32 %v;
  ld.param.u64 %a, [where];
  ld.param.u32 %v, [value];
  ld.global.u64 %a, [%a];
  st.global.u32 [%a], %v;
  ret;
}
.visible .entry await(.param .u64 flag, .param .u32 value) {
  .reg .u64 %a;
  .reg .u32 %v, %f;
  .reg .pred %p;
  ld.param.u64 %a, [flag];
  ld.param.u32 %v, [value];
again:
  ld.volatile.global.u32 %f, [%a];
  setp.ne.u32 %p, %f, %v;
  @%p bra again;
  st.global.u32 [%a+4], %v;
  ret;
}
)";

// Device memory by address.
using Content = std::map<std::uint64_t, Bytes>;

class Engine : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kMemory = 64 << 20;

  Engine() { Open(); }
  ~Engine() override { Close(); }

  // A session, anew at the same addresses.
  void Open(std::uint64_t memory_bytes = kMemory) {
    Close();
    options_ = TestOptions(/*stage_threads=*/2);
    auto arena = ReservedRange::At(options_.layout.arena_base,
                                   options_.layout.arena_bytes);
    ASSERT_TRUE(arena.ok()) << arena.status().ToString();
    arena_ = std::make_unique<ReservedRange>(std::move(*arena));
    device_ = std::make_unique<WrappedDevice>(options_, memory_bytes);
    session_ = std::make_unique<TestSession>(
        options_, std::vector<Device*>{device_.get()}, memory_bytes);
  }
  void Close() {
    client_.reset();
    session_.reset();
    device_.reset();
    arena_.reset();
  }
  void Start() {
    (*session_)->Start();
    client_ = std::make_unique<SessionClient>(session_->ring());
    context_ = client_->MakeContext();
    stream_ = client_->MakeStream(context_);
    const std::uint64_t module = Module(kEngineKernels);
    for (const char* name : {"store", "indirect", "await"}) {
      functions_[name] = FindFunction(client_.get(), module, name);
    }
  }
  std::uint64_t Module(std::string_view ptx) {
    return LoadModule(client_.get(), context_, ptx);
  }

  // --- What the client does. ---

  void Launch(std::uint64_t stream, const std::string& function,
              std::uint64_t address, std::uint32_t value) {
    std::vector<std::byte> params(12);
    std::memcpy(params.data(), &address, sizeof(address));
    std::memcpy(params.data() + 8, &value, sizeof(value));
    PostLaunch(client_.get(), stream, functions_[function], 1, 1, params);
  }
  void Fill(std::uint64_t stream, std::uint64_t address, std::uint64_t bytes,
            std::uint32_t value) {
    client_->Post(cuda::FillArgs{.stream = stream,
                                 .dst = address,
                                 .count = bytes / 4,
                                 .rows = 1,
                                 .pitch = 0,
                                 .value = value,
                                 .width = 4});
  }
  // A block of noise.
  std::uint64_t Block(std::uint64_t bytes, std::uint64_t seed) {
    const std::uint64_t block = client_->Alloc(context_, bytes);
    const Bytes noise = Noise(bytes, seed);
    for (std::uint64_t at = 0; at < bytes; at += 1 << 20) {
      client_->CopyIn(stream_, block + at,
                      std::span(noise).subspan(
                          at, std::min<std::uint64_t>(1 << 20, bytes - at)));
    }
    EXPECT_EQ(client_->Sync(stream_), 0);
    return block;
  }

  // --- Saving. ---

  Session& session() { return **session_; }
  void Quiesce() {
    const Status status = session().Quiesce(Deadline::AfterMs(20000));
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  // All of device memory, of a session that is paused.
  Content Memory() {
    Content content;
    for (const auto& [address, block] : session().memory().blocks()) {
      Bytes bytes(block.bytes);
      const Status status = device_->Read(address, bytes);
      EXPECT_TRUE(status.ok()) << status.ToString();
      content[address] = std::move(bytes);
    }
    return content;
  }
  std::unique_ptr<SessionSave> Save(SaveOptions options = {}) {
    SessionFiles files;
    files.store = NewStoreId();
    files.session = 1;
    files.digest_seed = 4711;
    files.chunk_bytes = kChunk;
    files.pack_id = pack_id_ = NewPackId();
    pack_ = MemFile();
    index_ = MemFile();
    PackHeader header;
    header.store = files.store;
    header.pack = files.pack_id;
    header.digest_seed = files.digest_seed;
    EXPECT_TRUE(
        PwriteFull(pack_.get(), EncodePackHeader(header), 0, "pack").ok());
    files.pack = *DuplicateFd(pack_.get());
    files.index = *DuplicateFd(index_.get());
    auto save = SessionSave::Create(&session(), std::move(files), options);
    EXPECT_TRUE(save.ok()) << save.status().ToString();
    return std::move(*save);
  }
  // The rest of a save that has been copied, then a session of it, which has
  // to hold `wanted`.
  void ExpectImage(std::unique_ptr<SessionSave> save, const Content& wanted) {
    const Status finished = save->Finish();
    ASSERT_TRUE(finished.ok()) << finished.ToString();
    save.reset();
    Open();
    SessionLoadFiles files;
    files.index = *DuplicateFd(index_.get());
    files.packs.emplace_back(pack_id_, *DuplicateFd(pack_.get()));
    const auto loaded = LoadSession(&session(), std::move(files));
    ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
    session_->ledger().SetUsed(session().TakenBytes(0));
    const Content got = Memory();
    ASSERT_EQ(got.size(), wanted.size());
    for (const auto& [address, bytes] : wanted) {
      const auto it = got.find(address);
      ASSERT_TRUE(it != got.end()) << address;
      EXPECT_TRUE(it->second == bytes)
          << "memory at " << address << " is not that of the cut";
    }
  }

  std::atomic<bool> cancel_{false};
  SessionOptions options_;
  std::unique_ptr<ReservedRange> arena_;
  std::unique_ptr<WrappedDevice> device_;
  std::unique_ptr<TestSession> session_;
  std::unique_ptr<SessionClient> client_;
  SessionClient::Context context_;
  std::uint64_t stream_ = 0;
  std::map<std::string, std::uint64_t> functions_;
  PackId pack_id_;
  UniqueFd pack_;
  UniqueFd index_;
};

}  // namespace pos::ckpt

#endif  // TESTS_CKPT_ENGINE_ENGINE_FIXTURE_H_
