#include "ckpt/engine/use_order.h"

#include <algorithm>
#include <vector>

namespace pos::ckpt {

std::map<std::uint64_t, std::uint32_t> RankAllocations(const Session& session) {
  std::vector<const cuda::WorkerBlock*> blocks;
  for (const auto& [address, block] : session.memory().blocks()) {
    blocks.push_back(&block);
  }
  std::sort(blocks.begin(), blocks.end(),
            [](const cuda::WorkerBlock* a, const cuda::WorkerBlock* b) {
              return a->made > b->made;
            });
  std::map<std::uint64_t, std::uint32_t> ranks;
  std::uint32_t rank = 0;
  for (const cuda::WorkerBlock* block : blocks) ranks[block->address] = ++rank;
  return ranks;
}

}  // namespace pos::ckpt
