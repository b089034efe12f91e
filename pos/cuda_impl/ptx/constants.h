// The constant lanes of a program: immediates (32 equal lanes), lane numbers
// and masks, and which special registers a launch and a warp must provide.
//
// Threads: one, while a kernel is decoded.
#ifndef POS_CUDA_IMPL_PTX_CONSTANTS_H_
#define POS_CUDA_IMPL_PTX_CONSTANTS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "pos/cuda_impl/ptx/program.h"

namespace pos::ptx {

class ConstantPool {
 public:
  // Operands, as in Inst. `width` is 2, 4, 8 or 16 bytes; 0 makes a predicate.
  std::uint32_t Immediate(std::uint32_t width, std::uint64_t bits);
  // Not for SpecialWhere::kRead.
  std::uint32_t SpecialRegister(Special special);

  [[nodiscard]] std::size_t bytes() const { return bytes_.size(); }
  // Moves everything into the program.
  void Finish(Program* program);

 private:
  std::uint32_t Append(std::uint32_t bytes);
  std::uint32_t LaneSpecial(Special special);

  std::vector<std::byte> bytes_;
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::uint32_t> immediates_;
  std::map<Special, std::uint32_t> specials_;
  std::vector<Special> launch_;
  std::vector<Special> warp_;
  std::uint32_t launch_bytes_ = 0;
  std::uint32_t warp_bytes_ = 0;
};

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_CONSTANTS_H_
