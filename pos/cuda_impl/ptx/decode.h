// Makes the Program of a kernel: lowers, lays out, allocates and emits the
// kernel's function and every one that it can call.
//
// Threads: one per kernel; pure but for what it is given.
// Errors:  kIncompatible, naming instruction and line.
#ifndef POS_CUDA_IMPL_PTX_DECODE_H_
#define POS_CUDA_IMPL_PTX_DECODE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "pos/base/status.h"
#include "pos/cuda_impl/ptx/lower.h"
#include "pos/cuda_impl/ptx/program.h"

namespace pos::ptx {

// `reach`: functions of the unit, the kernel first (CallGraph::Reachable).
Result<std::unique_ptr<Program>> Decode(
    const ast::Unit& unit, const std::vector<std::uint32_t>& reach,
    const std::vector<std::uint64_t>& variable_addresses, const IsaTable& isa);

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_DECODE_H_
