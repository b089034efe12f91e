// Declares the functions that choose handlers: one PickXxx for every name in
// the last column of opcodes.def. Included only by isa/*.cc.
#ifndef POS_CUDA_IMPL_PTX_ISA_HANDLERS_H_
#define POS_CUDA_IMPL_PTX_ISA_HANDLERS_H_

#include "pos/cuda_impl/ptx/isa/isa.h"

namespace pos::ptx::POS_PTX_ISA {

#define POS_PTX_OP(base, pattern, shape, operands, pick) \
  HandlerPair Pick##pick(const PickKey& key);
#include "pos/cuda_impl/ptx/opcodes.def"
#undef POS_PTX_OP

}  // namespace pos::ptx::POS_PTX_ISA

#endif  // POS_CUDA_IMPL_PTX_ISA_HANDLERS_H_
