// Text that kernels have printed and that the client has not fetched: what
// CUDA calls the printf FIFO, one for each context.
//
// Bounds:  a context keeps its capacity at most (CU_LIMIT_PRINTF_FIFO_SIZE),
//   all together kTotalBytes. When there is no room, the oldest text goes, as
//   in CUDA's circular buffer; a piece counts kPieceOverhead more than it has.
//   What is lost is counted and logged once at the next Take.
// Order:   Take gives pieces in the order of Append over all contexts.
// Once:    what Take gave is gone. Save has what no Take gave.
// Threads: any, at once; nothing blocks for long. `ready` (see SetReady) is
//   called with the lock held, so what it was told last is true.
#ifndef POS_DEVICE_OUTPUT_FIFO_H_
#define POS_DEVICE_OUTPUT_FIFO_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "pos/base/bytes.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/device/device.h"

namespace pos {

class OutputFifo {
 public:
  // CUDA's default.
  static constexpr std::uint64_t kDefaultBytes = 1u << 20;
  static constexpr std::uint64_t kTotalBytes = 64u << 20;
  static constexpr std::uint64_t kPieceOverhead = 16;

  OutputFifo() = default;
  OutputFifo(const OutputFifo&) = delete;
  OutputFifo& operator=(const OutputFifo&) = delete;

  // Called when text comes after there was none, and when the last one was
  // taken. Must not block. Set before anything is appended.
  void SetReady(std::function<void(bool)> ready) { ready_ = std::move(ready); }

  // `context` is named by the caller; new ones have kDefaultBytes.
  void Append(std::uint64_t context, OutputKind kind, std::string_view text)
      POS_EXCLUDES(mu_);
  void SetCapacity(std::uint64_t context, std::uint64_t bytes)
      POS_EXCLUDES(mu_);
  // Nothing more comes from it; what there is can be taken.
  void Close(std::uint64_t context) POS_EXCLUDES(mu_);

  // Head of a piece in Take's output; `bytes` of text follow, without padding.
  struct Piece {
    std::uint32_t kind;  // OutputKind
    std::uint32_t bytes;
  };
  // Moves the oldest text to `out`, as pieces; a long one may come in parts.
  // The bytes written. *left: bytes of text that did not fit.
  std::size_t Take(std::span<std::byte> out, std::uint64_t* left)
      POS_EXCLUDES(mu_);

  void Save(ByteWriter* out) const POS_EXCLUDES(mu_);
  // Into an empty one.
  Status Load(ByteReader* in) POS_EXCLUDES(mu_);

 private:
  struct Entry {
    std::uint64_t number;  // ascending over all contexts
    OutputKind kind;
    std::string text;
    std::size_t taken = 0;  // bytes of `text` that Take gave
  };
  struct Queue {
    std::deque<Entry> entries;
    std::uint64_t bytes = 0;  // with overhead
    std::uint64_t capacity = kDefaultBytes;
    bool closed = false;
  };
  using Queues = std::map<std::uint64_t, Queue>;

  static std::uint64_t Cost(const Entry& entry) {
    return entry.text.size() + kPieceOverhead;
  }
  // The queue with the oldest entry; nullptr when all are empty.
  Queue* Oldest() POS_REQUIRES(mu_);
  void Push(Queue* queue, Entry entry) POS_REQUIRES(mu_);
  void DropFront(Queue* queue) POS_REQUIRES(mu_);
  void Lose(Queue* queue) POS_REQUIRES(mu_);
  void TellReady() POS_REQUIRES(mu_);

  std::function<void(bool)> ready_;
  mutable Mutex mu_;
  Queues queues_ POS_GUARDED_BY(mu_);
  std::uint64_t next_ POS_GUARDED_BY(mu_) = 0;
  std::uint64_t total_ POS_GUARDED_BY(mu_) = 0;    // with overhead
  std::uint64_t pending_ POS_GUARDED_BY(mu_) = 0;  // text only
  std::uint64_t lost_pieces_ POS_GUARDED_BY(mu_) = 0;
  bool told_ready_ POS_GUARDED_BY(mu_) = false;
  bool told_loss_ POS_GUARDED_BY(mu_) = false;
};

// What a context prints, on its way to the FIFO; completions go on unchanged.
class ContextSink : public CompletionSink {
 public:
  ContextSink(CompletionSink* completions, OutputFifo* output,
              std::uint64_t context)
      : completions_(completions), output_(output), context_(context) {}
  void OnComplete(std::uint64_t token, DeviceError error) override {
    completions_->OnComplete(token, error);
  }
  void OnDeviceOutput(OutputKind kind, std::string_view text) override {
    output_->Append(context_, kind, text);
  }

 private:
  CompletionSink* const completions_;
  OutputFifo* const output_;
  const std::uint64_t context_;
};

}  // namespace pos

#endif  // POS_DEVICE_OUTPUT_FIFO_H_
