// Which device memory may have been written lately, and by which call: what a
// concurrent checkpoint copies again first, and how fast a session dirties its
// memory. It decides about time only: whether a copy is right is proved by
// digests.
//
//   ChunkVersions versions(chunk_bytes);
//   versions.Record(access);              // each call of the session, in order
//   versions.MayBeWritten(range, pc);     // by a call later than `pc`?
//   versions.WrittenSince(pc);
//
// A version is the `pc` of the last call that was handed to the device and may
// write (0: none so far). Handed over is not done: memory that was copied while
// work of earlier calls still ran can differ from the copy although no later
// call wrote it. A copy is clean of the calls up to `pc` only if it began after
// they had completed.
//
// Granularity: chunks of addresses that are multiples of `chunk_bytes`; a write
//   to a part of one counts for all of it.
// Memory:      bounded by kMostSpans (16 MiB); beyond, chunks get larger.
// Threads:     any; Record is called in ascending order of `pc`, from one.
// Blocking:    a lock, held for a few map operations (Record) or for as long as
//              all spans take to be read (WrittenSince).
//
// Test: tests/ckpt/engine/chunk_versions_test.cc
#ifndef CKPT_ENGINE_CHUNK_VERSIONS_H_
#define CKPT_ENGINE_CHUNK_VERSIONS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/worker/memory_watch.h"

namespace pos::ckpt {

class ChunkVersions {
 public:
  static constexpr std::size_t kMostSpans = 1 << 18;

  struct Written {
    // Anything may have been, `ranges` says nothing.
    bool everything = false;
    // Ascending, disjoint, not touching each other; in whole chunks.
    std::vector<MemoryRange> ranges;

    // How many bytes of `memory` (disjoint ranges: what is allocated) that is.
    [[nodiscard]] std::uint64_t BytesOf(
        std::span<const MemoryRange> memory) const;
  };
  struct Counts {  // calls recorded
    std::uint64_t proven = 0;
    std::uint64_t guessed = 0;
    std::uint64_t unknown = 0;
  };

  // `chunk_bytes`: a power of two.
  explicit ChunkVersions(std::uint64_t chunk_bytes,
                         std::size_t most_spans = kMostSpans);
  ChunkVersions(const ChunkVersions&) = delete;
  ChunkVersions& operator=(const ChunkVersions&) = delete;

  // Memory that is made or given back counts as written, too: afterwards it
  // holds something else.
  void Record(const CallAccess& access) POS_EXCLUDES(mu_);

  // The version of `range`: the highest of its chunks.
  [[nodiscard]] std::uint64_t LastWriter(const MemoryRange& range) const
      POS_EXCLUDES(mu_);
  [[nodiscard]] bool MayBeWritten(const MemoryRange& range,
                                  std::uint64_t after_pc) const {
    return LastWriter(range) > after_pc;
  }
  // What calls later than `pc` may have written.
  [[nodiscard]] Written WrittenSince(std::uint64_t pc) const POS_EXCLUDES(mu_);
  [[nodiscard]] Counts counts() const POS_EXCLUDES(mu_);
  [[nodiscard]] std::uint64_t chunk_bytes() const POS_EXCLUDES(mu_);
  [[nodiscard]] std::size_t spans() const POS_EXCLUDES(mu_);

 private:
  struct Span {
    std::uint64_t end = 0;
    std::uint64_t pc = 0;
  };
  using Spans = std::map<std::uint64_t, Span>;  // by their first address

  void Assign(const MemoryRange& range, std::uint64_t pc) POS_REQUIRES(mu_);
  // No span reaches over `address` afterwards.
  void SplitAt(std::uint64_t address) POS_REQUIRES(mu_);
  void Coarsen() POS_REQUIRES(mu_);

  const std::size_t most_spans_;
  mutable Mutex mu_;
  std::uint64_t chunk_bytes_ POS_GUARDED_BY(mu_);
  Spans spans_ POS_GUARDED_BY(mu_);
  // What a call that may write anything has made of all that is not newer.
  std::uint64_t all_ POS_GUARDED_BY(mu_) = 0;
  Counts counts_ POS_GUARDED_BY(mu_);
};

// Records and holds up nobody: for a look at how much a session writes.
class WriteRecorder : public MemoryWatch {
 public:
  explicit WriteRecorder(ChunkVersions* versions) : versions_(versions) {}
  Verdict BeforeCall(const CallAccess& access) override {
    versions_->Record(access);
    return Verdict::kGo;
  }

 private:
  ChunkVersions* const versions_;
};

}  // namespace pos::ckpt

#endif  // CKPT_ENGINE_CHUNK_VERSIONS_H_
