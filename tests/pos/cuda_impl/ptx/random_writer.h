// Statements of random kernels without control flow; random_flow.cc has the
// rest.
//
// Registers of every function: %h0 … %h5 (16 bits), %r0 … %r9, %d0 … %d7 and
// %p0 … %p5 hold data. %t, %a and %q hold what one statement needs, %c loop
// counters, %m masks, %hx, %rx, %dx and %px what lives for a few statements.
// %in, %own (this thread's memory), %loc (.local, as a local address) and %lane
// are set once.
#ifndef TESTS_POS_CUDA_IMPL_PTX_RANDOM_WRITER_H_
#define TESTS_POS_CUDA_IMPL_PTX_RANDOM_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "tests/support/random.h"

namespace pos::ptx::testing {

constexpr std::uint32_t kDataRegisters16 = 6;
constexpr std::uint32_t kDataRegisters32 = 10;
constexpr std::uint32_t kDataRegisters64 = 8;
constexpr std::uint32_t kDataPredicates = 6;
constexpr std::uint32_t kShortLived = 100;
constexpr std::uint32_t kOwnBytes = 128;    // at %own
constexpr std::uint32_t kLocalBytes = 128;  // at %loc
constexpr std::uint32_t kSharedBytes = 16;  // at %slot, of each thread

static_assert(kDataPredicates == kDataRegisters16);

class Writer {
 public:
  explicit Writer(std::uint64_t seed) : random_(seed) {}

  [[nodiscard]] std::string& text() { return text_; }
  std::uint32_t Below(std::uint32_t n) { return random_.Below(n); }
  bool OneIn(std::uint32_t n) { return Below(n) == 0; }
  void Line(const std::string& line) { text_ += line + "\n"; }
  std::string NewLabel(std::string_view stem);

  // A data register of so many bytes; 0: a predicate.
  std::string Data(std::uint32_t bytes);
  std::string Guard();  // "@%p3 " or nothing

  void Declarations();  // registers that every function has
  void Arithmetic();    // any instruction of opcodes.def that has a reference
  void CarryChain();
  void PackOrUnpack();
  void InputLoad();
  void PrivateMemory(bool has_shared);  // %own, %loc or %slot
  void PrivateAtomic(bool has_shared);
  void CommonReduction();  // red to %acc
  // One instruction of the lanes in `mask`, all of which must come here.
  void Collective(const std::string& mask);
  // The same, from two places.
  void SplitCollective(const std::string& mask);

 private:
  std::string Source(char letter, std::string_view opcode, bool last);
  void Canonical(const std::string& reg, std::uint32_t bytes);
  std::string PrivateAddress(bool has_shared, bool atomic, std::string* space);
  std::string DataList(std::uint32_t bytes, std::uint32_t count, bool load,
                       bool is_float);
  void Shuffle(const std::string& mask);
  void FromTwoPlaces(std::uint32_t kind, const std::string& p,
                     const std::string& mask, const std::string& before_second);
  std::string CollectiveText(std::uint32_t kind, const std::string& mask);

  Random random_;
  std::string text_;
  std::uint32_t labels_ = 0;
};

}  // namespace pos::ptx::testing

#endif  // TESTS_POS_CUDA_IMPL_PTX_RANDOM_WRITER_H_
