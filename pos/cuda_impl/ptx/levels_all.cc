#include "pos/cuda_impl/ptx/levels.h"

namespace pos::ptx {

const IsaLevel kBestBuiltLevel = IsaLevel::kV4;

const IsaTable& TableOf(IsaLevel level) {
  switch (level) {
    case IsaLevel::kV4:
      return isa_v4::kTable;
    case IsaLevel::kV3:
      return isa_v3::kTable;
    case IsaLevel::kBaseline:
      break;
  }
  return isa_baseline::kTable;
}

}  // namespace pos::ptx
