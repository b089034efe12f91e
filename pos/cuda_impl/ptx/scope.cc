#include "pos/cuda_impl/ptx/scope.h"

#include <charconv>
#include <cstddef>

namespace pos::ptx {
namespace {

// "%rd12" is "%rd" and 12. False without digits or with a leading zero.
bool SplitNumber(std::string_view name, std::string_view* prefix,
                 std::uint32_t* number) {
  std::size_t begin = name.size();
  while (begin > 0 && name[begin - 1] >= '0' && name[begin - 1] <= '9') {
    --begin;
  }
  // A prefix may itself end in digits ("%r1_"): the number is the longest tail
  // without a leading zero, but "%r0" has the number 0.
  if (begin == name.size() || begin == 0) return false;
  if (name[begin] == '0' && begin + 1 < name.size()) return false;
  const auto parsed =
      std::from_chars(name.data() + begin, name.data() + name.size(), *number);
  if (parsed.ec != std::errc()) return false;
  *prefix = name.substr(0, begin);
  return true;
}

}  // namespace

bool Scope::Bind(std::string_view name, Binding binding) {
  return names_.emplace(name, binding).second;
}

bool Scope::BindRange(std::string_view prefix, std::uint32_t count,
                      std::uint32_t first) {
  if (ranges_.size() >= kMaxRanges) return false;
  for (const Range& range : ranges_) {
    if (range.prefix == prefix) return false;
  }
  ranges_.push_back({prefix, count, first});
  return true;
}

const Binding* Scope::Find(std::string_view name) {
  std::string_view prefix;
  std::uint32_t number = 0;
  if (!ranges_.empty() && SplitNumber(name, &prefix, &number)) {
    for (const Range& range : ranges_) {
      if (range.prefix == prefix && number < range.count) {
        in_range_.kind = ast::OperandKind::kRegister;
        in_range_.index = range.first + number;
        return &in_range_;
      }
    }
  }
  if (names_.empty()) return nullptr;
  const auto found = names_.find(name);
  return found == names_.end() ? nullptr : &found->second;
}

void Scope::Clear() {
  ranges_.clear();
  names_.clear();
  pending_.clear();
}

bool ScopeStack::Push() {
  if (depth_ + 1 >= kMaxDepth) return false;
  ++depth_;
  if (scopes_.size() <= depth_) scopes_.emplace_back();
  return true;
}

void ScopeStack::Pop() {
  scopes_[depth_].Clear();
  --depth_;
}

const Binding* ScopeStack::Find(std::string_view name) {
  for (std::size_t i = depth_ + 1; i-- > 0;) {
    if (const Binding* found = scopes_[i].Find(name)) return found;
  }
  return nullptr;
}

}  // namespace pos::ptx
