#include "remoting/frontend/front_end.h"

#include <cstring>
#include <string>

namespace pos {
namespace {

// The header's numbers, read once from our own copy.
struct Header {
  std::uint32_t size;
  std::uint16_t op;
  std::uint16_t flags;
  std::uint32_t args_bytes;
  std::uint32_t inline_bytes;
  std::uint32_t slot;
  std::uint32_t lease;
  std::uint64_t request_id;
  std::uint64_t bulk_bytes;
  std::uint64_t reserved;
};
static_assert(sizeof(Header) == sizeof(wire::FrameHeader));

Header ReadHeader(std::span<const std::byte> frame) {
  Header header;
  std::memcpy(&header, frame.data(), sizeof(header));
  return header;
}

bool InlineAllowed(Payload payload) {
  return payload == Payload::kInline || payload == Payload::kBulkIn ||
         payload == Payload::kInlineBulkOut;
}

Status CheckLease(const Header& h, const CallInfo& info,
                  const RingGeometry& geometry) {
  const bool in = (h.flags & wire::kFrameBulkIn) != 0;
  const bool out = (h.flags & wire::kFrameBulkOut) != 0;
  if (!in && !out) {
    if (h.lease != wire::kNoLease || h.bulk_bytes != 0) {
      return Proto(std::string(info.name) + ": lease without a direction");
    }
    return {};
  }
  const bool allowed =
      in != out && (in ? info.payload == Payload::kBulkIn
                       : (info.payload == Payload::kBulkOut ||
                          info.payload == Payload::kInlineBulkOut));
  if (!allowed) return Proto(std::string(info.name) + ": takes no such lease");
  if (in && h.inline_bytes != 0) {
    return Proto(std::string(info.name) + ": payload both inline and staged");
  }
  const std::uint64_t offset = std::uint64_t{h.lease} * wire::kLeaseBytes;
  if (offset >= geometry.staging_bytes ||
      h.bulk_bytes > geometry.staging_bytes - offset) {
    return Proto(std::string(info.name) + ": lease " + std::to_string(h.lease) +
                 " with " + std::to_string(h.bulk_bytes) +
                 " bytes runs past the staging arena");
  }
  return {};
}

}  // namespace

Status ValidateFrame(std::span<const std::byte> frame, CallTable table,
                     const RingGeometry& geometry) {
  if (frame.size() < sizeof(Header)) return Proto("frame without a header");
  const Header h = ReadHeader(frame);
  if (h.op >= table.size() || table[h.op].name == nullptr) {
    return Proto("unknown call " + std::to_string(h.op));
  }
  const CallInfo& info = table[h.op];
  if (h.args_bytes != info.args_bytes) {
    return Proto(std::string(info.name) + ": arguments of " +
                 std::to_string(h.args_bytes) + " bytes, wanted " +
                 std::to_string(info.args_bytes));
  }
  const std::uint64_t payload_room =
      frame.size() - sizeof(Header) >= h.args_bytes
          ? frame.size() - sizeof(Header) - h.args_bytes
          : 0;
  if (frame.size() - sizeof(Header) < h.args_bytes ||
      h.inline_bytes > payload_room ||
      payload_room - h.inline_bytes >= wire::kFrameAlign) {
    return Proto(std::string(info.name) + ": payload of " +
                 std::to_string(h.inline_bytes) + " bytes in a frame of " +
                 std::to_string(frame.size()));
  }
  if (h.inline_bytes != 0 && !InlineAllowed(info.payload)) {
    return Proto(std::string(info.name) + ": takes no payload");
  }
  if ((h.flags & ~(wire::kFrameBulkIn | wire::kFrameBulkOut)) != 0 ||
      h.reserved != 0) {
    return Proto(std::string(info.name) + ": unknown flags");
  }
  const bool has_slot = h.slot != wire::kNoSlot;
  if (has_slot && h.slot >= geometry.slot_count) {
    return Proto(std::string(info.name) + ": no reply slot " +
                 std::to_string(h.slot));
  }
  if (info.reply != ReplyBy::kOptional &&
      has_slot != (info.reply != ReplyBy::kNobody)) {
    return Proto(std::string(info.name) +
                 (has_slot ? ": has no reply" : ": needs a reply slot"));
  }
  return CheckLease(h, info, geometry);
}

void FrontEnd::Fail(const Status& status) {
  failed_ = true;
  on_malformed_(status);
}

bool FrontEnd::FlushReady() {
  if (ready_ == nullptr) return true;
  if (!out_->TryPush(ready_)) return false;
  ready_ = nullptr;
  if (wake_downstream_) wake_downstream_();
  return true;
}

void FrontEnd::SetInfo(ApiContext* context) const {
  const Header h = ReadHeader({context->frame(), context->frame_bytes});
  context->info = &table_[h.op];
  context->inline_bytes = h.inline_bytes;
}

bool FrontEnd::IsOfItsFrame(const ApiContext& context) {
  const Header h = ReadHeader({context.frame(), context.frame_bytes});
  return context.slot == h.slot && context.lease == h.lease &&
         context.bulk_bytes == h.bulk_bytes && (context.flags & ~h.flags) == 0;
}

void FrontEnd::Fill(ApiContext* context) {
  const Header h = ReadHeader({context->frame(), context->frame_bytes});
  context->info = &table_[h.op];
  context->request_id = h.request_id;
  context->slot = h.slot;
  context->lease = h.lease;
  context->bulk_bytes = h.bulk_bytes;
  context->flags = h.flags;
  context->inline_bytes = h.inline_bytes;
  const std::uint64_t pc = next_pc_.load(std::memory_order_relaxed);
  context->pc = pc;
  next_pc_.store(pc + 1, std::memory_order_relaxed);
}

bool FrontEnd::TakeOne() {
  std::uint32_t bytes = 0;
  switch (ring_->PeekSize(&bytes)) {
    case RingServer::NextResult::kNone:
      return false;
    case RingServer::NextResult::kCorrupt:
      Fail(Proto("frame of an impossible size"));
      return false;
    case RingServer::NextResult::kFrame:
      break;
  }
  if (spare_ == nullptr) spare_ = pool_->Take();
  if (spare_ == nullptr) return false;  // back-pressure
  const std::span<std::byte> buffer = spare_->FrameBuffer(bytes);
  ring_->Take(buffer);
  if (Status status = ValidateFrame(buffer, table_, ring_->geometry());
      !status.ok()) {
    Fail(status);
    return false;
  }
  ready_ = spare_;
  spare_ = nullptr;
  Fill(ready_);
  FlushReady();
  return true;
}

bool FrontEnd::Step() {
  if (failed_) return false;
  pool_->Recycle();
  bool progress = false;
  for (int i = 0; i < kBatch; ++i) {
    if (!FlushReady() || !TakeOne()) break;
    progress = true;
  }
  if (!progress) ring_->Publish();
  return progress;
}

bool FrontEnd::Idle() {
  if (failed_) return true;
  std::uint32_t bytes = 0;
  return ready_ == nullptr &&
         ring_->PeekSize(&bytes) == RingServer::NextResult::kNone;
}

bool FrontEnd::Quiet() const {
  return failed_ || (ready_ == nullptr && !ring_->HasReservations());
}

}  // namespace pos
