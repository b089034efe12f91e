// A second client of a session that does to the first one's memory what calls
// can do: overwrites it, gives it back, takes its mappings away, makes other
// memory where it was. What an image shows of the time before must not change.
//
// Threads: one. Slots from kFirstSlot on are its own; it uses no staging.
#ifndef POS_TESTS_SUPPORT_VANDAL_H_
#define POS_TESTS_SUPPORT_VANDAL_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "tests/support/random.h"
#include "tests/support/session_client.h"
#include "tests/support/sim_session.h"

namespace pos {

class Vandal {
 public:
  static constexpr std::uint32_t kFirstSlot = 128;

  Vandal(SimSession* session, std::uint64_t seed)
      : session_(*session),
        random_(seed),
        client_(session->ring(), kFirstSlot) {}

  // Calls are answered or refused, as they come.
  void Rage(std::uint32_t steps) {
    // What was sent before has been carried out when this is answered.
    own_ = client_.MakeContext();
    EXPECT_EQ(client_.Sync(own_.stream), 0);
    LookAround();
    for (; steps != 0; --steps) Step();
    if (!contexts_.empty() && random_.Below(3) == 0) {
      Refused(client_.Call(cuda::CtxDestroyArgs{.context = contexts_[0]}));
    }
    Refused(client_.Sync(own_.stream));
  }

 private:
  struct Block {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
    std::uint64_t usable = 0;
    bool mapped = false;
  };

  void LookAround() {
    session_->WhileStill([this] {
      for (const auto& [address, block] : session_->memory().blocks()) {
        if (block.leaving || block.context == own_.id) continue;
        if (!block.accessible) continue;
        // Its size is rounded; the program may use the first half in any case.
        blocks_.push_back(
            {address, block.bytes, block.bytes / 2, block.physical != 0});
      }
      session_->DescribeHandles([this](const Session::HandleUse& use) {
        const std::string_view kind = use.kind;
        if (use.handle == own_.id) return;
        if (kind == "context") contexts_.push_back(use.handle);
        if (kind == "module") modules_.push_back(use.handle);
        if (kind == "function") functions_.push_back(use.handle);
        if (kind == "stream" && use.parent != own_.id) {
          streams_.push_back(use.handle);
        }
      });
    });
  }
  // No stream has work any more that uses what is about to go.
  void AwaitAll() {
    for (const std::uint64_t context : contexts_) {
      Refused(client_.Call(cuda::CtxSynchronizeArgs{.context = context}));
    }
    Refused(client_.Sync(own_.stream));
  }
  void Step() {
    if (blocks_.empty()) return Make();
    const std::size_t place = Below(blocks_.size());
    const Block block = blocks_[place];
    switch (random_.Below(12)) {
      case 0:
        return Make();
      case 1:
      case 2:
        return Free(place);
      case 3:
        if (modules_.empty() || random_.Below(4) != 0) return;
        AwaitAll();
        Refused(client_.Call(cuda::ModuleUnloadArgs{.module = modules_[0]}));
        modules_.clear();
        functions_.clear();
        return blocks_.clear();  // some were its variables
      case 4:
      case 5:
        return Launch(block);
      case 6:
      case 7: {
        const Block& other = blocks_[Below(blocks_.size())];
        client_.Post(cuda::CopyArgs{
            .stream = own_.stream,
            .dst = block.address,
            .src = other.address,
            .bytes = 1 + Below(std::min(block.usable, other.usable))});
        return;
      }
      default:
        Fill(block, Below(block.usable), 1 + Below(100));
        return Fill(block, 0, block.usable);
    }
  }
  void Make() {
    const std::uint64_t bytes = 256 + random_.Below(3 << 20);
    if (client_.Call(cuda::MemAllocArgs{.context = own_.id, .bytes = bytes}) !=
        0) {
      return;
    }
    blocks_.push_back(
        {client_.Result<cuda::MemAllocOut>().address, bytes, bytes, false});
    Fill(blocks_.back(), 0, bytes);
  }
  void Free(std::size_t place) {
    const Block block = blocks_[place];
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(place));
    AwaitAll();
    if (!block.mapped) {
      Refused(client_.Call(cuda::MemFreeArgs{.address = block.address}));
    } else if (random_.Below(2) == 0) {
      Refused(client_.Call(cuda::PhysicalUnmapArgs{.address = block.address,
                                                   .bytes = block.bytes}));
    } else {
      Refused(client_.Call(cuda::SetAccessArgs{.address = block.address,
                                               .bytes = block.bytes,
                                               .device = 0,
                                               .allowed = 0}));
    }
  }
  void Fill(const Block& block, std::uint64_t at, std::uint64_t bytes) {
    client_.Post(cuda::FillArgs{.stream = own_.stream,
                                .dst = block.address + at,
                                .count = std::min(bytes, block.usable - at),
                                .rows = 1,
                                .pitch = 0,
                                .value = random_.Below(256),
                                .width = 1});
  }
  // Kernels of the program: all have these parameters.
  void Launch(const Block& block) {
    if (functions_.empty() || streams_.empty() || block.usable < 512) return;
    std::vector<std::byte> params(16);
    const std::uint32_t words = 128;
    std::memcpy(params.data(), &block.address, 8);
    std::memcpy(params.data() + 8, &words, 4);
    const std::uint32_t mixed = random_.Below(1000);
    std::memcpy(params.data() + 12, &mixed, 4);
    client_.Post(
        cuda::LaunchArgs{.stream = streams_[Below(streams_.size())],
                         .function = functions_[Below(functions_.size())],
                         .grid_x = 2,
                         .grid_y = 1,
                         .grid_z = 1,
                         .block_x = 64,
                         .block_y = 1,
                         .block_z = 1,
                         .shared_bytes = 0,
                         .cooperative = 0},
        {.inline_data = params});
  }
  // The program's memory may be gone: any answer will do, but there is one.
  static void Refused(std::int32_t result) {
    EXPECT_NE(result, SessionClient::kNoAnswer);
  }
  std::uint64_t Below(std::uint64_t n) {
    return random_.Below(static_cast<std::uint32_t>(n));
  }

  SimSession& session_;
  Random random_;
  SessionClient client_;
  SessionClient::Context own_;
  std::vector<Block> blocks_;
  std::vector<std::uint64_t> contexts_;
  std::vector<std::uint64_t> modules_;
  std::vector<std::uint64_t> functions_;
  std::vector<std::uint64_t> streams_;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_VANDAL_H_
