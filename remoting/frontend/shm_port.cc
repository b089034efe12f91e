#include "remoting/frontend/shm_port.h"

namespace pos {

void ShmPort::Reply(ApiContext* context) {
  context->answered = true;
  ring_->Complete(context->slot, context->result,
                  std::span(context->reply).first(context->reply_bytes),
                  context->reply_bulk_bytes);
}

std::span<const std::byte> ShmPort::BulkIn(const ApiContext& context) {
  if ((context.flags & wire::kFrameBulkIn) == 0) return context.Inline();
  if (!context.owned_bulk.empty()) return context.owned_bulk;
  return ring_->Staging(context.lease, context.bulk_bytes);
}

std::span<std::byte> ShmPort::BulkOut(const ApiContext& context) {
  if ((context.flags & wire::kFrameBulkOut) == 0) return {};
  return ring_->Staging(context.lease, context.bulk_bytes);
}

void ShmPort::ReleaseBulkIn(ApiContext* context) {
  if ((context->flags & wire::kFrameBulkIn) == 0) return;
  context->flags &= static_cast<std::uint16_t>(~wire::kFrameBulkIn);
  ring_->ReleaseLease(context->lease);
}

void ShmPort::SetSticky(std::int32_t error) { ring_->SetSticky(error); }

void ShmPort::SetOutput(bool waiting) { ring_->SetOutput(waiting); }

}  // namespace pos
