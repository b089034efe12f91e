// What the session's handles are, for who looks at an image.
#include "pos/cuda_impl/api/calls.h"
#include "pos/runner/session.h"

namespace pos {
namespace {

const char* KindName(HandleKind kind) {
  switch (kind) {
    case cuda::kContextHandle:
      return "context";
    case cuda::kStreamHandle:
      return "stream";
    case cuda::kEventHandle:
      return "event";
    case cuda::kBlobHandle:
      return "code";
    case cuda::kModuleHandle:
      return "module";
    case cuda::kFunctionHandle:
      return "function";
    case cuda::kPhysicalHandle:
      return "physical memory";
    default:
      return "other";
  }
}

std::uint64_t BytesOf(const Handle& handle) {
  std::uint64_t bytes = 0;
  for (const RecipeStep& step : handle.recipe.steps()) {
    bytes += step.args.size() + step.inline_data.size() +
             step.values.size() * sizeof(std::uint64_t);
  }
  if (handle.kind == cuda::kBlobHandle && handle.parser_data != nullptr) {
    bytes +=
        static_cast<const cuda::Blob*>(handle.parser_data.get())->bytes.size();
  }
  return bytes;
}

}  // namespace

void Session::DescribeHandles(
    const std::function<void(const HandleUse&)>& visit) const {
  state_->graph.ForEach([&visit](Handle* handle) {
    const Handle* const parent = handle->parents[0];
    visit({KindName(handle->kind), handle->id,
           parent == nullptr ? HandleId{0} : parent->id, BytesOf(*handle)});
  });
}

}  // namespace pos
