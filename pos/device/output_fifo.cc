#include "pos/device/output_fifo.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "pos/base/log.h"

namespace pos {

OutputFifo::Queue* OutputFifo::Oldest() {
  Queue* oldest = nullptr;
  for (auto& [context, queue] : queues_) {
    if (queue.entries.empty()) continue;
    if (oldest == nullptr ||
        queue.entries.front().number < oldest->entries.front().number) {
      oldest = &queue;
    }
  }
  return oldest;
}

void OutputFifo::DropFront(Queue* queue) {
  const Entry& entry = queue->entries.front();
  queue->bytes -= Cost(entry);
  total_ -= Cost(entry);
  pending_ -= entry.text.size() - entry.taken;
  queue->entries.pop_front();
}

void OutputFifo::Lose(Queue* queue) {
  DropFront(queue);
  ++lost_pieces_;
}

void OutputFifo::Push(Queue* queue, Entry entry) {
  queue->bytes += Cost(entry);
  total_ += Cost(entry);
  pending_ += entry.text.size() - entry.taken;
  queue->entries.push_back(std::move(entry));
}

void OutputFifo::TellReady() {
  const bool ready = pending_ != 0;
  if (ready == told_ready_) return;
  told_ready_ = ready;
  if (ready_) ready_(ready);
}

void OutputFifo::Append(std::uint64_t context, OutputKind kind,
                        std::string_view text) {
  if (text.empty()) return;
  Entry entry{.number = 0, .kind = kind, .text = std::string(text)};
  const MutexLock lock(&mu_);
  Queue& queue = queues_[context];
  if (Cost(entry) > queue.capacity) {
    ++lost_pieces_;
    return;
  }
  while (queue.bytes + Cost(entry) > queue.capacity) Lose(&queue);
  while (total_ + Cost(entry) > kTotalBytes) Lose(Oldest());
  entry.number = next_++;
  Push(&queue, std::move(entry));
  TellReady();
}

void OutputFifo::SetCapacity(std::uint64_t context, std::uint64_t bytes) {
  const MutexLock lock(&mu_);
  Queue& queue = queues_[context];
  queue.capacity = std::min(bytes, kTotalBytes);
  while (queue.bytes > queue.capacity) Lose(&queue);
  TellReady();
}

void OutputFifo::Close(std::uint64_t context) {
  const MutexLock lock(&mu_);
  const auto it = queues_.find(context);
  if (it == queues_.end()) return;
  it->second.closed = true;
  if (it->second.entries.empty()) queues_.erase(it);
}

std::size_t OutputFifo::Take(std::span<std::byte> out, std::uint64_t* left) {
  std::size_t at = 0;
  std::uint64_t lost = 0;
  {
    const MutexLock lock(&mu_);
    while (out.size() - at > sizeof(Piece)) {
      Queue* const queue = Oldest();
      if (queue == nullptr) break;
      Entry& entry = queue->entries.front();
      const std::size_t bytes = std::min(entry.text.size() - entry.taken,
                                         out.size() - at - sizeof(Piece));
      const Piece piece{static_cast<std::uint32_t>(entry.kind),
                        static_cast<std::uint32_t>(bytes)};
      std::memcpy(out.data() + at, &piece, sizeof(piece));
      std::memcpy(out.data() + at + sizeof(piece),
                  entry.text.data() + entry.taken, bytes);
      at += sizeof(piece) + bytes;
      entry.taken += bytes;
      pending_ -= bytes;
      if (entry.taken == entry.text.size()) DropFront(queue);
    }
    std::erase_if(queues_, [](const auto& item) {
      return item.second.closed && item.second.entries.empty();
    });
    *left = pending_;
    if (lost_pieces_ != 0 && !told_loss_) {
      told_loss_ = true;
      lost = lost_pieces_;
    }
    TellReady();
  }
  if (lost != 0) {
    POS_LOG(kWarning,
            "kernels print more than the FIFO holds: the oldest text is lost; "
            "synchronize more often, or raise CU_LIMIT_PRINTF_FIFO_SIZE",
            {{"pieces", lost}});
  }
  return at;
}

void OutputFifo::Save(ByteWriter* out) const {
  const MutexLock lock(&mu_);
  out->Put(static_cast<std::uint64_t>(queues_.size()));
  for (const auto& [context, queue] : queues_) {
    out->Put(context);
    out->Put(queue.capacity);
    out->Put(static_cast<std::uint8_t>(queue.closed));
    out->Put(static_cast<std::uint64_t>(queue.entries.size()));
    for (const Entry& entry : queue.entries) {
      out->Put(entry.number);
      out->Put(static_cast<std::uint8_t>(entry.kind));
      out->PutString(std::string_view(entry.text).substr(entry.taken));
    }
  }
}

Status OutputFifo::Load(ByteReader* in) {
  const MutexLock lock(&mu_);
  const auto count = in->Get<std::uint64_t>();
  for (std::uint64_t i = 0; i < count && in->ok(); ++i) {
    Queue& queue = queues_[in->Get<std::uint64_t>()];
    queue.capacity = std::min(in->Get<std::uint64_t>(), kTotalBytes);
    queue.closed = in->Get<std::uint8_t>() != 0;
    const auto entries = in->Get<std::uint64_t>();
    for (std::uint64_t j = 0; j < entries && in->ok(); ++j) {
      Entry entry;
      entry.number = in->Get<std::uint64_t>();
      entry.kind = static_cast<OutputKind>(in->Get<std::uint8_t>());
      entry.text = in->GetString();
      if (entry.kind != OutputKind::kPrinted &&
          entry.kind != OutputKind::kFailed) {
        return Corrupt("printed text of unknown kind");
      }
      // The order is the file's; a wrong one mixes lines and harms nothing.
      next_ = std::max(next_, entry.number + 1);
      Push(&queue, std::move(entry));
    }
    if (queue.bytes > queue.capacity || total_ > kTotalBytes) {
      return Corrupt("more printed text than the FIFO holds");
    }
  }
  if (!in->ok()) return Corrupt("printed text ends early");
  TellReady();
  return {};
}

}  // namespace pos
