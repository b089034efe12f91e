// What a hostile client can write into the shared memory: the runner takes
// frames off the ring, checks, parses and executes them on a device that does
// nothing.
//
// Input: the first byte chooses between frames that are mostly right, so that
// calls reach the parser and lean on each other, and bytes put into the ring as
// they are. Whatever comes, the stages neither crash nor touch what is not
// theirs; what the parser gets is as the table of calls says; every call is
// answered at most once; nothing follows the first malformed frame.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <span>

#include "planted.h"
#include "pos/base/log.h"
#include "pos/call/context_pool.h"
#include "pos/cuda_impl/api/calls.h"
#include "pos/cuda_impl/parser/cuda_parser.h"
#include "pos/cuda_impl/parser/session_state.h"
#include "pos/cuda_impl/worker/cuda_executor.h"
#include "pos/device/null_device.h"
#include "pos/parser/parser.h"
#include "pos/worker/worker.h"
#include "remoting/frontend/front_end.h"
#include "remoting/frontend/shm_port.h"
#include "remoting/transport/shm/ring_client.h"
#include "remoting/transport/shm/ring_server.h"

namespace pos {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

class Ledger : public MemoryLedger {
 public:
  Answer Take(int, std::uint64_t bytes) override {
    if (bytes > left_) return Answer::kDenied;
    left_ -= bytes;
    return Answer::kGranted;
  }
  void GiveBack(int, std::uint64_t bytes) override {
    left_ += bytes;
    Require(left_ <= kBytes);
  }
  [[nodiscard]] std::uint64_t FreeBytes(int) const override { return left_; }
  static constexpr std::uint64_t kBytes = 64 << 20;

 private:
  std::uint64_t left_ = kBytes;
};

class Window : public cuda::HostWindow {
 public:
  Status Map(std::uint64_t, std::uint64_t) override { return {}; }
  void Unmap(std::uint64_t, std::uint64_t) override {}
};

// Counts answers by call.
class Port : public ShmPort {
 public:
  using ShmPort::ShmPort;
  void Reply(ApiContext* context) override {
    Require(answered_.insert(context->pc).second);
    ShmPort::Reply(context);
  }

 private:
  std::set<std::uint64_t> answered_;
};

// The parser of the API, behind a look at what it is given.
class CheckedParser : public ApiParser {
 public:
  CheckedParser(ApiParser* parser, ShmPort* port, const RingGeometry& geometry)
      : parser_(parser), port_(port), geometry_(geometry) {}

  Outcome Parse(ApiContext* context) override {
    const CallInfo& info = *context->info;
    Require(info.name != nullptr && info.op < cuda::Calls().size());
    Require(std::uint64_t{sizeof(wire::FrameHeader)} + info.args_bytes +
                context->inline_bytes <=
            context->frame_bytes);
    Require(!context->wants_reply() || context->slot < geometry_.slot_count);
    Require(context->wants_reply() || info.reply == ReplyBy::kNobody ||
            info.reply == ReplyBy::kOptional);
    if ((context->flags & wire::kFrameBulkIn) != 0) {
      Require(port_->BulkIn(*context).size() == context->bulk_bytes);
    }
    if ((context->flags & wire::kFrameBulkOut) != 0) {
      Require(port_->BulkOut(*context).size() == context->bulk_bytes);
    }
    fuzz::PlantedBug(static_cast<cuda::Op>(info.op) == cuda::Op::kFill &&
                     context->Args<cuda::FillArgs>().rows > 1000);
    // A client may ask for a gigabyte of code images at a time; the fuzzer has
    // no need to.
    if (static_cast<cuda::Op>(info.op) == cuda::Op::kBlobCreate &&
        (context->Args<cuda::BlobCreateArgs>().bytes > (1 << 16))) {
      context->result = 1;
      return Outcome::kAnswered;
    }
    const Outcome outcome = parser_->Parse(context);
    // A copy out of memory that there is, to more than one unit of staging.
    fuzz::PlantedBug(outcome == Outcome::kForward &&
                     static_cast<cuda::Op>(info.op) ==
                         cuda::Op::kCopyFromDevice &&
                     context->bulk_bytes > wire::kLeaseBytes);
    return outcome;
  }
  void OnNotice(const Notice& notice) override { parser_->OnNotice(notice); }

 private:
  ApiParser* const parser_;
  ShmPort* const port_;
  const RingGeometry geometry_;
};

RingGeometry Geometry() {
  RingGeometry geometry;
  geometry.ring_bytes = 256 << 10;
  geometry.slot_count = 16;
  geometry.staging_bytes = 4 * wire::kLeaseBytes;
  return geometry;
}

cuda::ArenaLayout Layout() {
  return {.arena_base = 0x7e8000000000,
          .arena_bytes = 2ull << 30,
          .host_base = 0x7e8100000000,
          .host_bytes = 64 << 20};
}

// The stages on one thread, as Session puts them together.
class Pipeline {
 public:
  Pipeline()
      : ring_(std::move(*RingServer::Create(Geometry()))),
        port_(ring_.get()),
        device_(NewNullDevice(Ledger::kBytes)),
        state_({device_.get()}, Layout(), &ledger_),
        api_(&state_, &port_),
        checked_(&api_, &port_, Geometry()),
        executor_(&state_, &port_, &notices_, &completions_, &window_,
                  &api_.dropped_error()),
        front_end_(ring_.get(), cuda::Calls(), &pool_, &to_parser_,
                   [this](const Status&) { ++malformed_; }),
        parser_(&checked_, &pool_, &port_, &to_parser_, &to_worker_, &notices_),
        worker_(&executor_, &pool_, &port_, &to_worker_, &completions_) {
    client_.Adopt(ring_->ring_memory(), ring_->staging_memory());
  }

  RingServer& ring() { return *ring_; }
  RingClient& client() { return client_; }

  void Run() {
    // Bounded: every step takes something from a finite ring.
    for (int i = 0; i < 100000; ++i) {
      const std::uint64_t pc = front_end_.next_pc();
      const bool was_malformed = malformed_ != 0;
      bool progress = front_end_.Step();
      Require(!was_malformed || front_end_.next_pc() == pc);
      progress = parser_.Step() || progress;
      progress = worker_.Step() || progress;
      if (!progress) break;
    }
    Require(malformed_ <= 1);
    // The front end's spare is all that may be out besides what waits.
    Require(pool_.Outstanding() <= parser_.waiting().size() + 1);
    Require(worker_.in_flight() == 0);
    for (std::uint32_t i = 0; i < Geometry().slot_count; ++i) {
      Learn(client_.slot(i));
    }
  }

  // A number that an answer held (an id, an address), as clients use them.
  [[nodiscard]] std::uint64_t Known(std::size_t i) const {
    return known_.empty() ? 0 : known_[i % known_.size()];
  }

 private:
  // Takes the answer out of a slot, if there is one.
  void Learn(wire::ReplySlot& slot) {
    if (slot.state.exchange(wire::kSlotFree) != wire::kSlotDone) return;
    Require(slot.bytes <= slot.data.size());
    for (std::size_t at = 0; at + 8 <= slot.bytes && at < 16; at += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, slot.data.data() + at, sizeof(word));
      if (slot.result == 0 && known_.size() < 64) known_.push_back(word);
    }
  }

  std::unique_ptr<RingServer> ring_;
  RingClient client_;
  std::vector<std::uint64_t> known_;
  Port port_;
  ContextPool pool_{1024};
  ContextQueue to_parser_;
  ContextQueue to_worker_;
  NoticeBoard notices_;
  CompletionQueue completions_;
  Ledger ledger_;
  Window window_;
  std::unique_ptr<Device> device_;
  cuda::SessionState state_;
  cuda::CudaParser api_;
  CheckedParser checked_;
  cuda::CudaExecutor executor_;
  int malformed_ = 0;
  FrontEnd front_end_;
  Parser parser_;
  Worker worker_;
};

// Reads numbers off the input; zeros at its end.
class Input {
 public:
  explicit Input(std::span<const std::byte> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  template <typename T>
  T Take() {
    T value{};
    const auto part = TakeBytes(sizeof(T));
    std::memcpy(&value, part.data(), part.size());
    return value;
  }
  std::span<const std::byte> TakeBytes(std::size_t count) {
    const auto part = bytes_.first(std::min(count, bytes_.size()));
    bytes_ = bytes_.subspan(part.size());
    return part;
  }

 private:
  std::span<const std::byte> bytes_;
};

// One frame: op, what is particular about it, slot and lease, payload,
// arguments (small numbers, results of earlier calls, anything).
void WriteFrame(Input* in, Pipeline* pipeline) {
  RingClient* const client = &pipeline->client();
  const auto op = in->Take<std::uint8_t>();
  const auto twist = in->Take<std::uint8_t>();
  const auto place = in->Take<std::uint8_t>();
  const std::uint32_t inline_bytes =
      (twist & 1) != 0 ? in->Take<std::uint16_t>() % 9000u : 0;
  const CallInfo* const info =
      op < cuda::Calls().size() ? &cuda::Calls()[op] : nullptr;
  const std::uint32_t args_bytes =
      info == nullptr ? 8 : info->args_bytes + ((twist & 2) != 0 ? 8 : 0);
  wire::FrameHeader* const frame = client->Begin(op, args_bytes, inline_bytes);
  if (frame == nullptr) return;
  // Room that is not written reads as zero.
  for (std::uint32_t at = 0; at + 8 <= args_bytes; at += 8) {
    const auto choice = in->Take<std::uint8_t>();
    const std::uint64_t word = choice >= 0xc0   ? in->Take<std::uint64_t>()
                               : choice >= 0x80 ? pipeline->Known(choice & 0x3f)
                                                : choice;
    std::memcpy(RingClient::Args(frame) + at, &word, sizeof(word));
  }
  const auto payload = in->TakeBytes(inline_bytes);
  std::memcpy(RingClient::Args(frame) + args_bytes, payload.data(),
              payload.size());
  const bool replies = info != nullptr && info->reply != ReplyBy::kNobody;
  if (replies != ((twist & 4) != 0)) frame->slot = place % 18u;
  if ((twist & 8) != 0) {
    frame->flags = in->Take<std::uint8_t>() % 5;
    frame->lease = place / 18u % 6u;
    frame->bulk_bytes = in->Take<std::uint32_t>() % (6 * wire::kLeaseBytes);
  }
  if ((twist & 16) != 0) frame->reserved = in->Take<std::uint8_t>();
  if ((twist & 32) != 0) frame->inline_bytes = in->Take<std::uint32_t>();
  const std::uint32_t true_inline = frame->inline_bytes;
  frame->inline_bytes = inline_bytes;  // for the size that Commit writes
  client->Commit(frame);
  frame->inline_bytes = true_inline;
}

}  // namespace
}  // namespace pos

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  if (size == 0) return 0;
  static const bool quiet = [] {
    pos::SetLogLevel(pos::LogLevel::kError);
    return true;
  }();
  (void)quiet;
  pos::Pipeline pipeline;
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
  if (data[0] % 4 != 0) {
    pos::Input in(bytes);
    for (int frames = 0; !in.empty() && frames < 64; ++frames) {
      pos::WriteFrame(&in, &pipeline);
      if (data[0] % 4 == 1) pipeline.Run();
    }
  } else {
    std::byte* const frames =
        pipeline.ring().ring_memory() +
        (pipeline.ring().ring_map_bytes() - pos::Geometry().ring_bytes);
    std::memcpy(frames, bytes.data(),
                std::min<std::size_t>(bytes.size(), 64 << 10));
  }
  pipeline.Run();
  return 0;
}
