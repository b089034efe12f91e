#include "ckpt/engine/handle_blob.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace pos::ckpt {
namespace {

constexpr std::size_t kLargest = 256;

bool Larger(const HandleUse& a, const HandleUse& b) {
  return std::pair(a.bytes, b.handle) > std::pair(b.bytes, a.handle);
}

}  // namespace

HandleSummary SummarizeHandles(const Session& session) {
  std::map<std::string, HandleKindUse> kinds;
  HandleSummary summary;
  std::vector<HandleUse>& largest = summary.largest;  // a heap, least on top
  session.DescribeHandles([&](const Session::HandleUse& handle) {
    HandleKindUse& use = kinds[handle.kind];
    ++use.count;
    use.bytes += handle.bytes;
    if (largest.size() == kLargest && handle.bytes <= largest.front().bytes) {
      return;
    }
    largest.push_back(
        {handle.kind, handle.handle, handle.parent, handle.bytes});
    std::push_heap(largest.begin(), largest.end(), Larger);
    if (largest.size() <= kLargest) return;
    std::pop_heap(largest.begin(), largest.end(), Larger);
    largest.pop_back();
  });
  for (auto& [kind, use] : kinds) {
    use.kind = kind;
    summary.kinds.push_back(use);
  }
  std::sort(largest.begin(), largest.end(), Larger);
  return summary;
}

Result<Blob> WriteHandleBlob(const Session& session, PackWriter* packs) {
  BlobWriter blob(packs);
  POS_RETURN_IF_ERROR(
      blob.Append(EncodeHandleSummary(SummarizeHandles(session))));
  return blob.Finish();
}

}  // namespace pos::ckpt
