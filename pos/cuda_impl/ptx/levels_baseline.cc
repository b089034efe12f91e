#include "pos/cuda_impl/ptx/levels.h"

namespace pos::ptx {

const IsaLevel kBestBuiltLevel = IsaLevel::kBaseline;

const IsaTable& TableOf(IsaLevel) { return isa_baseline::kTable; }

}  // namespace pos::ptx
