#include "remoting/transport/shm/ring_client.h"

#include <cstring>
#include <utility>

#include "pos/base/backoff.h"

namespace pos {

Status RingClient::Map(int ring_fd, std::uint64_t ring_map_bytes,
                       int staging_fd, std::uint64_t staging_bytes) {
  // The header is read through a mapping of its own first: the mirror's size
  // is in it.
  std::uint64_t ring_bytes = 0;
  {
    POS_ASSIGN_OR_RETURN(SharedMapping head,
                         SharedMapping::Map(ring_fd, 4096, 0));
    const auto* h = reinterpret_cast<const wire::RingHeader*>(head.data());
    if (h->magic != wire::kRingMagic || h->version != wire::kRingVersion) {
      return Incompatible("shared ring has version " +
                          std::to_string(h->version) + ", wanted " +
                          std::to_string(wire::kRingVersion));
    }
    ring_bytes = h->ring_bytes;
  }
  POS_ASSIGN_OR_RETURN(SharedMapping ring,
                       SharedMapping::Map(ring_fd, ring_map_bytes, ring_bytes));
  POS_ASSIGN_OR_RETURN(SharedMapping staging,
                       SharedMapping::Map(staging_fd, staging_bytes, 0));
  ring_ = std::move(ring);
  staging_ = std::move(staging);
  Adopt(ring_.data(), staging_.data());
  return {};
}

void RingClient::Adopt(std::byte* ring, std::byte* staging) {
  header_ = reinterpret_cast<wire::RingHeader*>(ring);
  slots_ = reinterpret_cast<wire::ReplySlot*>(ring + header_->slots_offset);
  leases_ = reinterpret_cast<std::atomic<std::uint32_t>*>(
      ring + header_->leases_offset);
  frames_ = ring + header_->ring_offset;
  staging_at_ = staging;
  ring_bytes_ = header_->ring_bytes;
  slot_count_ = header_->slot_count;
  lease_count_ = header_->lease_count;
}

void RingClient::Unmap() {
  ring_.Unmap();
  staging_.Unmap();
  header_ = nullptr;
}

wire::FrameHeader* RingClient::Begin(std::uint16_t op, std::uint32_t args_bytes,
                                     std::uint32_t inline_bytes) {
  const std::uint32_t size =
      (static_cast<std::uint32_t>(sizeof(wire::FrameHeader)) + args_bytes +
       inline_bytes + wire::kFrameAlign - 1) &
      ~(wire::kFrameAlign - 1);
  const std::uint64_t at =
      header_->tail.fetch_add(size, std::memory_order_acq_rel);
  if (at + size - header_->head.load(std::memory_order_acquire) > ring_bytes_) {
    Backoff backoff;
    while (at + size - header_->head.load(std::memory_order_acquire) >
           ring_bytes_) {
      if (closed()) return nullptr;
      backoff.Wait();
    }
  }
  if (closed()) return nullptr;
  auto* frame =
      reinterpret_cast<wire::FrameHeader*>(frames_ + (at & (ring_bytes_ - 1)));
  frame->op = op;
  frame->args_bytes = args_bytes;
  frame->inline_bytes = inline_bytes;
  // Positions are unique and ascend with the order of calls.
  frame->request_id = request_base_ + at / wire::kFrameAlign;
  frame->slot = wire::kNoSlot;
  frame->lease = wire::kNoLease;
  return frame;
}

void RingClient::Commit(wire::FrameHeader* frame) {
  const std::uint32_t size =
      (static_cast<std::uint32_t>(sizeof(wire::FrameHeader)) +
       frame->args_bytes + frame->inline_bytes + wire::kFrameAlign - 1) &
      ~(wire::kFrameAlign - 1);
  frame->commit.store(size, std::memory_order_release);
  Parker::NotifyWord(&header_->doorbell, FutexScope::kShared);
}

namespace {

std::size_t LeaseBytes(std::uint32_t units) {
  return std::size_t{units} * wire::kLeaseBytes;
}

}  // namespace

void StagingLeases::Free(std::uint32_t lease) {
  for (std::uint32_t i = 0; i < units_[lease]; ++i) used_[lease + i] = false;
  units_[lease] = 0;
}

void StagingLeases::Sweep(RingClient* ring) {
  if (units_.empty()) {
    units_.resize(ring->lease_count());
    used_.resize(ring->lease_count());
  }
  for (std::uint32_t i = 0; i < units_.size(); ++i) {
    if (units_[i] != 0 &&
        ring->leases()[i].load(std::memory_order_acquire) == 0) {
      Free(i);
    }
  }
}

std::uint32_t StagingLeases::Acquire(RingClient* ring, std::uint64_t bytes) {
  MutexLock lock(&mu_);
  Sweep(ring);
  const auto count = static_cast<std::uint32_t>(units_.size());
  if (bytes == 0 || bytes > std::uint64_t{count} * wire::kLeaseBytes) {
    return wire::kNoLease;
  }
  const auto wanted = static_cast<std::uint32_t>(
      (bytes + wire::kLeaseBytes - 1) / wire::kLeaseBytes);
  // Two passes: from where the last search ended, then from the start.
  for (const auto& [from, to] :
       {std::pair(next_, count), std::pair(0u, count)}) {
    std::uint32_t run = 0;
    for (std::uint32_t i = from; i < to; ++i) {
      run = used_[i] ? 0 : run + 1;
      if (run < wanted) continue;
      const std::uint32_t first = i + 1 - wanted;
      for (std::uint32_t k = first; k <= i; ++k) used_[k] = true;
      units_[first] = wanted;
      ring->leases()[first].store(wanted, std::memory_order_release);
      next_ = i + 1;
      return first;
    }
  }
  return wire::kNoLease;
}

void StagingLeases::Release(RingClient* ring, std::uint32_t lease) {
  MutexLock lock(&mu_);
  ring->leases()[lease].store(0, std::memory_order_release);
  Free(lease);
}

void StagingLeases::Save(RingClient* ring) {
  MutexLock lock(&mu_);
  Sweep(ring);
  content_.clear();
  for (std::uint32_t i = 0; i < units_.size(); ++i) {
    const std::byte* const at = ring->Staging(i);
    content_.insert(content_.end(), at, at + LeaseBytes(units_[i]));
  }
}

Status StagingLeases::Restore(RingClient* ring) {
  MutexLock lock(&mu_);
  if (units_.empty()) return {};
  if (ring->lease_count() < units_.size()) {
    return Incompatible("the runner has " +
                        std::to_string(ring->lease_count()) +
                        " units of staging, the one before had " +
                        std::to_string(units_.size()));
  }
  units_.resize(ring->lease_count());
  used_.resize(ring->lease_count());
  std::size_t taken = 0;
  for (std::uint32_t i = 0; i < units_.size(); ++i) {
    const std::size_t bytes = LeaseBytes(units_[i]);
    if (bytes != 0) {
      std::memcpy(ring->Staging(i), content_.data() + taken, bytes);
      taken += bytes;
    }
    ring->leases()[i].store(units_[i], std::memory_order_release);
  }
  content_ = {};
  return {};
}

std::uint32_t StagingLeases::UsedUnits(RingClient* ring) {
  MutexLock lock(&mu_);
  Sweep(ring);
  std::uint32_t used = 0;
  for (const bool u : used_) used += u ? 1 : 0;
  return used;
}

}  // namespace pos
