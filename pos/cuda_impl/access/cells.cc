#include "pos/cuda_impl/access/cells.h"

namespace pos::access {

bool Cells::Spoil() { return !std::exchange(spoiled_, true); }

bool Cells::Store(std::optional<std::int64_t> place, std::uint32_t bytes,
                  const Value& value) {
  if (value.empty()) return false;
  if (bytes > 8) return Spoil();
  if (place.has_value()) {
    const auto found = placed_.find({*place, bytes});
    if (found != placed_.end()) return found->second.Join(value);
    if (placed_.size() < kMaxPlaced) {
      placed_.emplace(Place{*place, bytes}, value);
      return true;
    }
  }
  return bytes == 8 ? loose_.Join(value) : Spoil();
}

Value Cells::Load(std::optional<std::int64_t> place, std::uint32_t bytes,
                  const Value& narrow) const {
  Value found;
  const Value other = bytes < 8 ? narrow : Value::Foreign();
  // Nothing that is placed is longer than eight bytes.
  auto next = place.has_value() ? placed_.lower_bound({*place - 8, 0})
                                : placed_.begin();
  for (; next != placed_.end(); ++next) {
    const auto& [at, value] = *next;
    const auto [offset, size] = at;
    if (place.has_value()) {
      if (offset >= *place + std::int64_t{bytes}) break;
      if (*place >= offset + std::int64_t{size}) continue;
    }
    const bool whole = place.has_value() ? offset == *place && size == bytes
                                         : size == 8 && bytes == 8;
    found.Join(whole ? value : other);
  }
  if (!loose_.empty()) found.Join(bytes == 8 ? loose_ : other);
  if (spoiled_) found.Join(other);
  return found;
}

bool Cells::Copy(const Cells& other) {
  if (&other == this) return false;
  bool changed = false;
  for (const auto& [at, value] : other.placed_) {
    changed = Store(at.first, at.second, value) || changed;
  }
  if (!other.loose_.empty()) changed = loose_.Join(other.loose_) || changed;
  if (other.spoiled_) changed = Spoil() || changed;
  return changed;
}

}  // namespace pos::access
