#include "pos/cuda_impl/ptx/constants.h"

#include <cstring>

#include "pos/cuda_impl/ptx/warp.h"

namespace pos::ptx {
namespace {

constexpr std::uint32_t kAlignment = 64;

std::uint32_t Operand(std::uint32_t offset, OperandBase base) {
  return offset << 2 | base;
}

// What lane `lane` reads. The block is a cluster of its own.
std::uint32_t LaneValue(Special special, std::uint32_t lane) {
  const std::uint32_t bit = 1u << lane;
  switch (special) {
    case Special::kLaneid:
      return lane;
    case Special::kLanemaskEq:
      return bit;
    case Special::kLanemaskLt:
      return bit - 1;
    case Special::kLanemaskLe:
      return bit | (bit - 1);
    case Special::kLanemaskGt:
      return ~(bit | (bit - 1));
    case Special::kLanemaskGe:
      return ~(bit - 1);
    case Special::kClusterNctaX:
    case Special::kClusterNctaY:
    case Special::kClusterNctaZ:
    case Special::kClusterNrank:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

std::uint32_t ConstantPool::Append(std::uint32_t bytes) {
  const std::size_t at = (bytes_.size() + kAlignment - 1) & ~std::size_t{63};
  bytes_.resize(at + bytes);
  return static_cast<std::uint32_t>(at);
}

std::uint32_t ConstantPool::Immediate(std::uint32_t width, std::uint64_t bits) {
  if (width < 8 && width > 0) bits &= (1ull << (8 * width)) - 1;
  if (width == 0) bits = bits != 0 ? 0xffffffff : 0;
  const auto [at, added] = immediates_.try_emplace({width, bits}, 0);
  if (!added) return at->second;
  const std::uint32_t count = width == 0 ? 1 : kLanes;
  const std::uint32_t step = width == 0 ? 4 : width;
  const std::uint32_t offset = Append(count * step);
  for (std::uint32_t lane = 0; lane < count; ++lane) {
    std::memcpy(bytes_.data() + offset + lane * step, &bits,
                step < 8 ? step : 8);
  }
  at->second = Operand(offset, kInProgram);
  return at->second;
}

std::uint32_t ConstantPool::LaneSpecial(Special special) {
  const std::uint32_t width = SpecialBytes(special) == 8 ? 8 : 4;
  const std::uint32_t offset = Append(kLanes * width);
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    const std::uint64_t value = LaneValue(special, lane);
    std::memcpy(bytes_.data() + offset + lane * width, &value, width);
  }
  return Operand(offset, kInProgram);
}

std::uint32_t ConstantPool::SpecialRegister(Special special) {
  const auto [at, added] = specials_.try_emplace(special, 0);
  if (!added) return at->second;
  const std::uint32_t bytes = SpecialBytes(special) == 8 ? 256 : 128;
  if (WhereOf(special) == SpecialWhere::kLaunch) {
    at->second = Operand(launch_bytes_, kInLaunch);
    launch_.push_back(special);
    launch_bytes_ += bytes;
  } else if (WhereOf(special) == SpecialWhere::kWarp) {
    at->second = Operand(warp_bytes_, kInWarp);
    warp_.push_back(special);
    warp_bytes_ += bytes;
  } else {
    at->second = LaneSpecial(special);
  }
  return at->second;
}

void ConstantPool::Finish(Program* program) {
  program->constant_bytes = static_cast<std::uint32_t>(bytes_.size());
  program->constant_storage.resize(bytes_.size() + kAlignment);
  void* at = program->constant_storage.data();
  std::size_t space = program->constant_storage.size();
  auto* aligned =
      static_cast<std::byte*>(std::align(kAlignment, bytes_.size(), at, space));
  if (!bytes_.empty()) std::memcpy(aligned, bytes_.data(), bytes_.size());
  program->constants = aligned;
  program->launch_specials = launch_;
  program->warp_specials = warp_;
  program->launch_bytes = launch_bytes_;
  program->warp_bytes = warp_bytes_;
}

}  // namespace pos::ptx
