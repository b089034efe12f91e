#include "ckpt/format/handle_summary.h"

#include "pos/base/bytes.h"

namespace pos::ckpt {
namespace {

constexpr std::size_t kMaxKindName = 64;

// A kind's name is shown to people and becomes part of JSON.
bool IsName(const std::string& text) {
  if (text.empty() || text.size() > kMaxKindName) return false;
  for (const char c : text) {
    if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != ' ' && c != '-') {
      return false;
    }
  }
  return true;
}

}  // namespace

std::vector<std::byte> EncodeHandleSummary(const HandleSummary& summary) {
  ByteWriter out;
  out.Put(static_cast<std::uint64_t>(summary.kinds.size()));
  for (const HandleKindUse& use : summary.kinds) {
    out.PutString(use.kind);
    out.Put(use.count);
    out.Put(use.bytes);
  }
  out.Put(static_cast<std::uint64_t>(summary.largest.size()));
  for (const HandleUse& use : summary.largest) {
    out.PutString(use.kind);
    out.Put(use.handle);
    out.Put(use.parent);
    out.Put(use.bytes);
  }
  return out.Take();
}

Result<HandleSummary> DecodeHandleSummary(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  HandleSummary summary;
  bool named = true;
  const auto kinds = in.Get<std::uint64_t>();
  if (kinds > kMaxHandleKinds) return Corrupt("too many kinds of handles");
  for (std::uint64_t i = 0; i < kinds && in.ok(); ++i) {
    HandleKindUse& use = summary.kinds.emplace_back();
    use.kind = in.GetString();
    use.count = in.Get<std::uint64_t>();
    use.bytes = in.Get<std::uint64_t>();
    named = named && IsName(use.kind);
  }
  const auto largest = in.Get<std::uint64_t>();
  if (largest > kMaxLargestHandles) return Corrupt("too many large handles");
  for (std::uint64_t i = 0; i < largest && in.ok(); ++i) {
    HandleUse& use = summary.largest.emplace_back();
    use.kind = in.GetString();
    use.handle = in.Get<std::uint64_t>();
    use.parent = in.Get<std::uint64_t>();
    use.bytes = in.Get<std::uint64_t>();
    named = named && IsName(use.kind);
  }
  if (!in.ok() || !named) return Corrupt("not a summary of handles");
  return summary;
}

}  // namespace pos::ckpt
