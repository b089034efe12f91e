// The player: memory and copies.
#include <algorithm>
#include <string>
#include <vector>

#include "tests/ckpt/engine/call_script.h"
#include "tests/ckpt/engine/script_bytes.h"

namespace pos {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kMostBuffers = 8;

// Small ones often, whole slabs now and then; a multiple of 4.
std::uint64_t SizeOf(std::uint32_t seed) {
  switch (seed % 8) {
    case 0:
      return 2 * kMiB + seed / 8 % 4096 * 4;
    case 1:
      return 256 + seed / 8 % 50000 * 4;
    default:
      return 256 + seed / 8 % 4000 * 4;
  }
}

cuda::FillArgs FillOf(std::uint64_t stream, std::uint64_t dst,
                      std::uint64_t bytes, std::uint32_t value) {
  return {.stream = stream,
          .dst = dst,
          .count = bytes,
          .rows = 1,
          .pitch = 0,
          .value = value & 0xff,
          .width = 1};
}

}  // namespace

void ScriptPlayer::Log(const std::string& what, std::int64_t value) {
  log_.push_back(what + " " + std::to_string(value));
}

void ScriptPlayer::Begin() {
  context_ = client_.MakeContext();
  streams_ = {context_.stream};
  bridge_ = client_.MakeEvent(context_);
}

void ScriptPlayer::Use(Memory* memory, std::uint64_t stream, bool wait) {
  if (memory->owner != kNobody && memory->owner != stream) {
    if (wait) {
      Settle(memory);
    } else {
      client_.Post(
          cuda::EventRecordArgs{.event = bridge_, .stream = memory->owner});
      client_.Post(
          cuda::StreamWaitEventArgs{.stream = stream, .event = bridge_});
    }
  }
  memory->owner = stream;
}

void ScriptPlayer::Settle(Memory* memory) {
  if (memory->owner == kNobody) return;
  Log("settle", client_.Sync(memory->owner));
  memory->owner = kNobody;
}

void ScriptPlayer::FillAll(Memory* memory, std::uint64_t stream,
                           std::uint32_t value) {
  Use(memory, stream, false);
  client_.Post(FillOf(stream, memory->address, memory->bytes, value));
}

// What fresh memory holds is not defined.
void ScriptPlayer::AddBuffer(std::uint64_t address, std::uint64_t bytes,
                             const Step& step) {
  buffers_.push_back({address, bytes, kNobody, 0});
  FillAll(&buffers_.back(), StreamOf(step.b), step.seed);
}

void ScriptPlayer::Play(const Step& step) {
  if (step.kind <= Step::kFreeAsync || step.kind == Step::kMapped ||
      step.kind == Step::kUnmapped) {
    PlayMemory(step);
  } else if (step.kind <= Step::kCopy) {
    PlayCopies(step);
  } else if (step.kind <= Step::kLaunchSlow ||
             (step.kind >= Step::kModuleLoad && step.kind <= Step::kVariable)) {
    PlayCode(step);
  } else if (step.kind <= Step::kStreamQuery) {
    PlayStreams(step);
  } else if (step.kind <= Step::kEventElapsed) {
    PlayEvents(step);
  } else if (step.kind <= Step::kHostOut) {
    PlayHost(step);
  } else {
    PlayWrong(step);
  }
  while (answers_.size() > 6) {
    Fetch(answers_.front());
    answers_.pop_front();
  }
}

void ScriptPlayer::PlayMemory(const Step& step) {
  const std::uint64_t bytes = SizeOf(step.seed);
  switch (step.kind) {
    case Step::kAlloc:
      if (buffers_.size() >= kMostBuffers) return;
      AddBuffer(client_.Alloc(context_, bytes), bytes, step);
      return;
    case Step::kAllocAsync: {
      if (buffers_.size() >= kMostBuffers) return;
      const std::int32_t result = client_.Call(
          cuda::MemAllocAsyncArgs{.stream = StreamOf(step.b), .bytes = bytes});
      Log("allocate", result);
      if (result != 0) return;
      AddBuffer(client_.Result<cuda::MemAllocAsyncOut>().address, bytes, step);
      return;
    }
    case Step::kMapped:
      AddMapped(step);
      return;
    default:
      break;
  }
  Memory* const memory = BufferOf(step.a);
  if (memory == nullptr) return;
  const auto place = memory - buffers_.data();
  if (memory->physical != 0) {
    DropMapped(static_cast<std::size_t>(place));
    return;
  }
  if (step.kind == Step::kUnmapped) return;
  if (step.kind == Step::kFree) {
    Log("free", client_.Call(cuda::MemFreeArgs{.address = memory->address}));
  } else {
    Use(memory, StreamOf(step.b), false);
    Log("free later",
        client_.Call(cuda::MemFreeAsyncArgs{.stream = memory->owner,
                                            .address = memory->address}));
  }
  buffers_.erase(buffers_.begin() + place);
}

void ScriptPlayer::AddMapped(const Step& step) {
  if (buffers_.size() >= kMostBuffers) return;
  const std::uint64_t bytes = 2 * kMiB;
  std::int32_t result = client_.Call(cuda::AddressReserveArgs{.bytes = bytes,
                                                              .alignment = 0,
                                                              .address = 0,
                                                              .device = 0,
                                                              .reserved = 0});
  Log("reserve", result);
  if (result != 0) return;
  const auto at = client_.Result<cuda::AddressReserveOut>().address;
  result = client_.Call(
      cuda::PhysicalCreateArgs{.bytes = bytes, .device = 0, .reserved = 0});
  Log("physical", result);
  if (result != 0) return;
  const auto physical = client_.Result<cuda::PhysicalCreateOut>().physical;
  Log("map", client_.Call(cuda::PhysicalMapArgs{
                 .address = at, .bytes = bytes, .physical = physical}));
  Log("access", client_.Call(cuda::SetAccessArgs{
                    .address = at, .bytes = bytes, .device = 0, .allowed = 1}));
  buffers_.push_back({at, bytes, kNobody, physical});
  FillAll(&buffers_.back(), StreamOf(step.b), step.seed);
}

void ScriptPlayer::DropMapped(std::size_t place) {
  const Memory memory = buffers_[place];
  Settle(&buffers_[place]);
  Log("unmap", client_.Call(cuda::PhysicalUnmapArgs{.address = memory.address,
                                                    .bytes = memory.bytes}));
  Log("release",
      client_.Call(cuda::PhysicalReleaseArgs{.physical = memory.physical}));
  Log("unreserve", client_.Call(cuda::AddressFreeArgs{.address = memory.address,
                                                      .bytes = memory.bytes}));
  buffers_.erase(buffers_.begin() + static_cast<std::ptrdiff_t>(place));
}

ScriptPlayer::Answer ScriptPlayer::AskFor(std::uint64_t stream,
                                          std::uint64_t address,
                                          std::uint64_t bytes) {
  Answer answer;
  answer.bytes = bytes;
  const cuda::CopyFromDeviceArgs args{
      .stream = stream, .src = address, .bytes = bytes};
  if (bytes <= wire::kSlotDataBytes) {
    answer.slot = client_.Begin(args);
    return answer;
  }
  answer.lease = client_.AwaitLease(bytes);
  answer.slot = client_.Begin(args, {.inline_data = {},
                                     .lease = answer.lease,
                                     .bulk_bytes = bytes,
                                     .flags = wire::kFrameBulkOut});
  return answer;
}

void ScriptPlayer::Fetch(const Answer& answer) {
  Log("copied out", client_.Await(answer.slot));
  if (answer.lease == wire::kNoLease) {
    EXPECT_EQ(client_.reply().size(), answer.bytes);
    Log("bytes", static_cast<std::int64_t>(HashOf(client_.reply())));
    return;
  }
  EXPECT_EQ(client_.reply_bulk_bytes(), answer.bytes);
  const std::byte* const at = client_.ring().Staging(answer.lease);
  Log("bytes", static_cast<std::int64_t>(HashOf({at, answer.bytes})));
  client_.leases().Release(&client_.ring(), answer.lease);
}

void ScriptPlayer::PlayCopies(const Step& step) {
  Memory* const memory = BufferOf(step.a);
  if (memory == nullptr) return;
  const std::uint64_t stream = StreamOf(step.b);
  const std::uint64_t offset = step.seed % (memory->bytes / 2) & ~3ull;
  const std::uint64_t room = memory->bytes - offset;
  const bool wait = step.seed % 5 == 0;
  switch (step.kind) {
    case Step::kFill:
      Use(memory, stream, wait);
      client_.Post(FillOf(stream, memory->address + offset,
                          1 + step.seed / 7 % room, step.seed));
      return;
    case Step::kCopyIn: {
      Use(memory, stream, wait);
      const std::uint64_t bytes =
          1 + step.seed / 7 % std::min<std::uint64_t>(room, 4000);
      client_.CopyIn(stream, memory->address + offset,
                     Pattern(bytes, step.seed));
      return;
    }
    case Step::kCopyInStaged:
      // More than fits into a frame.
      if (room <= wire::kMaxInlineBytes) return;
      Use(memory, stream, wait);
      client_.CopyIn(
          stream, memory->address + offset,
          Pattern(std::min<std::uint64_t>(
                      room, wire::kMaxInlineBytes + 1 + step.seed % 300000),
                  step.seed));
      return;
    case Step::kCopyOut:
    case Step::kCopyOutLater: {
      Use(memory, stream, wait);
      const std::uint64_t most = step.seed % 2 == 0 ? 200 : 200000;
      answers_.push_back(
          AskFor(stream, memory->address + offset,
                 1 + step.seed / 7 % std::min<std::uint64_t>(room, most)));
      if (step.kind == Step::kCopyOutLater) return;
      Fetch(answers_.back());
      answers_.pop_back();
      return;
    }
    case Step::kCopy: {
      Memory* const from = BufferOf(step.seed / 3);
      if (from == memory) return;
      Use(memory, stream, wait);
      Use(from, stream, wait);
      const std::uint64_t bytes =
          1 + step.seed / 7 % std::min(room, from->bytes);
      client_.Post(cuda::CopyArgs{.stream = stream,
                                  .dst = memory->address + offset,
                                  .src = from->address,
                                  .bytes = bytes});
      return;
    }
    default:
      return;
  }
}

}  // namespace pos
