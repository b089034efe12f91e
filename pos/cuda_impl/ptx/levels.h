// Which instruction-set levels this build has. Builds for debugging and with
// sanitizers have only the baseline: the handlers are the same source at every
// level, and compiling them costs most of the build.
//
// Threads: constants.
#ifndef POS_CUDA_IMPL_PTX_LEVELS_H_
#define POS_CUDA_IMPL_PTX_LEVELS_H_

#include "pos/cuda_impl/ptx/exec.h"
#include "pos/cuda_impl/ptx/isa/isa.h"

namespace pos::ptx {

extern const IsaLevel kBestBuiltLevel;
// The best level that is built and not above `level`.
const IsaTable& TableOf(IsaLevel level);

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_LEVELS_H_
