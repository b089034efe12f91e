#include "remoting/transport/shm/ring_server.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>

namespace pos {
namespace {

constexpr std::uint64_t kPage = 4096;

std::uint64_t RoundUp(std::uint64_t n, std::uint64_t unit) {
  return (n + unit - 1) / unit * unit;
}

}  // namespace

Result<std::unique_ptr<RingServer>> RingServer::Create(
    const RingGeometry& geometry) {
  if (!std::has_single_bit(geometry.ring_bytes) ||
      geometry.ring_bytes < 4 * std::uint64_t{wire::kMaxFrameBytes} ||
      geometry.ring_bytes > (1u << 30)) {
    return Invalid("ring size " + std::to_string(geometry.ring_bytes) +
                   " is not a power of two from 256 KiB to 1 GiB");
  }
  if (geometry.staging_bytes == 0 ||
      geometry.staging_bytes % wire::kLeaseBytes != 0 ||
      geometry.staging_bytes > (std::uint64_t{1} << 32)) {
    return Invalid("staging size " + std::to_string(geometry.staging_bytes) +
                   " is not a multiple of 64 KiB up to 4 GiB");
  }
  if (geometry.slot_count == 0 || geometry.slot_count > 4096) {
    return Invalid("number of reply slots is not from 1 to 4096");
  }
  std::unique_ptr<RingServer> server(new RingServer(geometry));
  POS_RETURN_IF_ERROR(server->Init());
  return server;
}

Status RingServer::Init() {
  lease_count_ =
      static_cast<std::uint32_t>(geometry_.staging_bytes / wire::kLeaseBytes);
  slots_offset_ = RoundUp(sizeof(wire::RingHeader), kPage);
  leases_offset_ =
      slots_offset_ + geometry_.slot_count * sizeof(wire::ReplySlot);
  ring_offset_ =
      RoundUp(leases_offset_ + lease_count_ * sizeof(std::uint32_t), kPage);
  const std::uint64_t total = ring_offset_ + geometry_.ring_bytes;

  POS_ASSIGN_OR_RETURN(ring_fd_, CreateSealedMemory("pos-ring", total));
  POS_ASSIGN_OR_RETURN(
      staging_fd_, CreateSealedMemory("pos-staging", geometry_.staging_bytes));
  POS_ASSIGN_OR_RETURN(
      ring_, SharedMapping::Map(ring_fd_.get(), total, geometry_.ring_bytes));
  POS_ASSIGN_OR_RETURN(
      staging_,
      SharedMapping::Map(staging_fd_.get(), geometry_.staging_bytes, 0));
  bell_fd_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!bell_fd_.valid()) return ErrnoStatus(errno, "eventfd");

  // Fresh memfd pages are zero, which is the initial state of everything else.
  wire::RingHeader* const h = new (ring_.data()) wire::RingHeader{};
  h->magic = wire::kRingMagic;
  h->version = wire::kRingVersion;
  h->ring_offset = ring_offset_;
  h->ring_bytes = geometry_.ring_bytes;
  h->slots_offset = slots_offset_;
  h->leases_offset = leases_offset_;
  h->slot_count = geometry_.slot_count;
  h->lease_count = lease_count_;
  doorbell_.emplace(&h->doorbell, FutexScope::kShared);
  return {};
}

wire::RingHeader* RingServer::header() const {
  return reinterpret_cast<wire::RingHeader*>(ring_.data());
}

wire::ReplySlot* RingServer::slots() const {
  return reinterpret_cast<wire::ReplySlot*>(ring_.data() + slots_offset_);
}

std::atomic<std::uint32_t>* RingServer::leases() const {
  return reinterpret_cast<std::atomic<std::uint32_t>*>(ring_.data() +
                                                       leases_offset_);
}

RingServer::NextResult RingServer::PeekSize(std::uint32_t* frame_bytes) {
  const std::uint64_t at = head_ & (geometry_.ring_bytes - 1);
  auto* const frame =
      reinterpret_cast<wire::FrameHeader*>(ring_.data() + ring_offset_ + at);
  const std::uint32_t size = frame->commit.load(std::memory_order_acquire);
  if (size == 0) return NextResult::kNone;
  if (size < sizeof(wire::FrameHeader) || size > wire::kMaxFrameBytes ||
      size % wire::kFrameAlign != 0) {
    return NextResult::kCorrupt;
  }
  *frame_bytes = size;
  return NextResult::kFrame;
}

void RingServer::Take(std::span<std::byte> frame) {
  const std::uint64_t at = head_ & (geometry_.ring_bytes - 1);
  std::byte* const source = ring_.data() + ring_offset_ + at;
  std::memcpy(frame.data(), source, frame.size());
  // Every 16-byte unit may be the start of a later frame, whose commit word
  // must read 0 until that frame is complete.
  std::memset(source, 0, frame.size());
  head_ += frame.size();
  if (head_ - published_ >= geometry_.ring_bytes / 16) Publish();
}

void RingServer::Publish() {
  if (published_ == head_) return;
  published_ = head_;
  header()->head.store(head_, std::memory_order_release);
}

bool RingServer::HasReservations() const {
  return header()->tail.load(std::memory_order_acquire) != head_;
}

void RingServer::Bell() {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then the bell rings anyway.
  [[maybe_unused]] const ssize_t n = ::write(bell_fd_.get(), &one, sizeof(one));
}

void RingServer::Complete(std::uint32_t slot, std::int32_t result,
                          std::span<const std::byte> data,
                          std::uint64_t bulk_bytes) {
  wire::ReplySlot& s = slots()[slot];
  s.result = result;
  s.bytes = static_cast<std::uint32_t>(data.size());
  s.bulk_bytes = bulk_bytes;
  std::copy(data.begin(), data.end(), s.data.begin());
  const std::uint32_t before =
      s.state.exchange(wire::kSlotDone, std::memory_order_acq_rel);
  if (before == wire::kSlotParked) Bell();
}

std::span<std::byte> RingServer::Staging(std::uint32_t lease,
                                         std::uint64_t bytes) const {
  const std::uint64_t offset = std::uint64_t{lease} * wire::kLeaseBytes;
  if (lease >= lease_count_ || bytes > geometry_.staging_bytes - offset) {
    return {};
  }
  return {staging_.data() + offset, static_cast<std::size_t>(bytes)};
}

void RingServer::ReleaseLease(std::uint32_t lease) {
  if (lease >= lease_count_) return;
  leases()[lease].store(0, std::memory_order_release);
  // A read-modify-write, so that it and the waiter's announcement come one
  // after the other: either this sees the announcement, or the waiter's next
  // look sees the freed lease.
  if (header()->lease_waiters.exchange(0, std::memory_order_acq_rel) != 0) {
    Bell();
  }
}

void RingServer::SetSticky(std::int32_t error) {
  header()->sticky_error.store(error, std::memory_order_release);
}

void RingServer::SetOutput(bool waiting) {
  header()->output.store(waiting ? 1 : 0, std::memory_order_release);
}

void RingServer::SetClosed() {
  header()->closed.store(1, std::memory_order_release);
  Bell();
}

}  // namespace pos
