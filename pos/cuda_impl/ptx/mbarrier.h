// mbarrier objects: 64 bits of shared memory that hold all of their state, so
// that a copy of the memory is a copy of the barrier.
//
//   bits  0 … 19  arrivals that the current phase still waits for
//   bits 20 … 39  arrivals that a phase begins with
//   bits 40 … 60  bytes that are still to come (tx-count), two's complement
//   bits 61 … 62  01: an mbarrier; anything else is none
//   bit  63       the current phase's parity
//
// The phase ends when the first and the third are zero. The ranges are those of
// the PTX ISA 9.0, 9.7.13.15.2.
//
// Threads: a block's shared memory belongs to the worker that runs the block,
//          so nothing here is atomic.
#ifndef POS_CUDA_IMPL_PTX_MBARRIER_H_
#define POS_CUDA_IMPL_PTX_MBARRIER_H_

#include <cstdint>

namespace pos::ptx {

struct Mbarrier {
  static constexpr std::uint32_t kMaxCount = (1u << 20) - 1;

  std::uint32_t pending = 0;
  std::uint32_t expected = 0;
  std::int32_t tx = 0;
  bool phase = false;

  // False when `word` is no mbarrier.
  [[nodiscard]] static bool Unpack(std::uint64_t word, Mbarrier* out);
  [[nodiscard]] std::uint64_t Pack() const;

  // Each returns nullptr, or what is wrong with doing it; then it was not done.
  [[nodiscard]] const char* Init(std::uint32_t count);
  // `bytes` more are to come, or have come.
  [[nodiscard]] const char* ExpectTx(std::uint32_t bytes);
  [[nodiscard]] const char* CompleteTx(std::uint32_t bytes);
  // With `may_end` false (.noComplete) it is an error to end the phase.
  [[nodiscard]] const char* Arrive(std::uint32_t count, bool may_end);
  // Later phases begin with `count` arrivals less.
  [[nodiscard]] const char* Drop(std::uint32_t count);

 private:
  void EndPhaseWhenComplete();
};

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_MBARRIER_H_
