#include "pos/graph/handle_graph.h"

#include <algorithm>
#include <utility>

namespace pos {
namespace {

HandleId MakeId(HandleKind kind, std::uint32_t generation,
                std::uint32_t index) {
  return (std::uint64_t{kind} << 56) |
         (std::uint64_t{generation & 0xffffff} << 32) | index;
}

constexpr std::uint8_t kAliveBit = 1;
constexpr std::uint8_t kNotMadeBit = 2;

void Clear(Handle* handle) {
  handle->parents = {};
  handle->alive = false;
  handle->made = true;
  handle->released = false;
  handle->children = 0;
  handle->parser_word = 0;
  handle->parser_data.reset();
  handle->materialized = false;
  handle->object.reset();
  handle->recipe.Clear();
}

}  // namespace

Handle* HandleGraph::Create(HandleKind kind, Handle* parent0, Handle* parent1) {
  std::uint32_t index = 0;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if (places_.size() >= kMaxHandles) return nullptr;
    index = static_cast<std::uint32_t>(places_.size());
    places_.emplace_back();
  }
  Place& place = places_[index];
  if (place.handle == nullptr) place.handle = std::make_unique<Handle>();
  place.used = true;
  ++place.generation;
  ++count_;
  Handle* const handle = place.handle.get();
  handle->id = MakeId(kind, place.generation, index);
  handle->kind = kind;
  handle->parents = {parent0, parent1};
  handle->alive = true;
  handle->created_at = next_order_++;
  for (Handle* parent : handle->parents) {
    if (parent != nullptr) ++parent->children;
  }
  return handle;
}

Handle* HandleGraph::At(std::uint32_t index) const {
  if (index >= places_.size() || !places_[index].used) return nullptr;
  return places_[index].handle.get();
}

Handle* HandleGraph::Resolve(HandleKind kind, HandleId id) const {
  Handle* const handle = At(IndexOf(id));
  if (handle == nullptr || handle->id != id || handle->kind != kind ||
      !handle->alive || !handle->made) {
    return nullptr;
  }
  return handle;
}

Handle* HandleGraph::Find(HandleId id) const {
  Handle* const handle = At(IndexOf(id));
  return handle != nullptr && handle->id == id ? handle : nullptr;
}

void HandleGraph::Release(Handle* handle) {
  handle->alive = false;
  handle->released = true;
  if (handle->children == 0) Remove(handle);
}

void HandleGraph::Remove(Handle* handle) {
  const std::array<Handle*, 2> parents = handle->parents;
  const std::uint32_t index = IndexOf(handle->id);
  Clear(handle);
  places_[index].used = false;
  free_.push_back(index);
  --count_;
  for (Handle* parent : parents) {
    if (parent == nullptr) continue;
    if (--parent->children == 0 && parent->released) Remove(parent);
  }
}

void HandleGraph::ForEach(const std::function<void(Handle*)>& visit) const {
  std::vector<Handle*> order;
  order.reserve(count_);
  for (const Place& place : places_) {
    if (place.used) order.push_back(place.handle.get());
  }
  std::sort(order.begin(), order.end(), [](const Handle* a, const Handle* b) {
    return a->created_at < b->created_at;
  });
  for (Handle* handle : order) visit(handle);
}

void HandleGraph::Save(ByteWriter* out) const {
  out->Put(next_order_);
  // Generations of free places too: an id that a client still remembers must
  // not come to mean something else after a restore.
  out->Put(static_cast<std::uint32_t>(places_.size()));
  for (const Place& place : places_) out->Put(place.generation);
  out->Put(static_cast<std::uint32_t>(free_.size()));
  for (const std::uint32_t index : free_) out->Put(index);
  out->Put(static_cast<std::uint32_t>(count_));
  ForEach([&](Handle* handle) {
    out->Put(handle->id);
    for (const Handle* parent : handle->parents) {
      out->Put(parent == nullptr ? HandleId{0} : parent->id);
    }
    out->Put(static_cast<std::uint8_t>((handle->alive ? kAliveBit : 0) |
                                       (handle->made ? 0 : kNotMadeBit)));
    out->Put(static_cast<std::uint8_t>(handle->released));
    out->Put(static_cast<std::uint8_t>(handle->materialized));
    out->Put(handle->created_at);
    out->Put(handle->parser_word);
    handle->recipe.Write(out);
  });
}

Status HandleGraph::Load(ByteReader* in) {
  places_.clear();
  free_.clear();
  count_ = 0;
  next_order_ = in->Get<std::uint64_t>();
  const auto places = in->Get<std::uint32_t>();
  if (places > kMaxHandles || std::uint64_t{places} * 4 > in->left()) {
    return Corrupt("handle graph: impossible number of places");
  }
  places_.resize(places);
  for (Place& place : places_) place.generation = in->Get<std::uint32_t>();
  const auto free_count = in->Get<std::uint32_t>();
  for (std::uint32_t i = 0; i < free_count && in->ok(); ++i) {
    const auto index = in->Get<std::uint32_t>();
    if (index >= places) return Corrupt("handle graph: bad free index");
    free_.push_back(index);
  }
  const auto count = in->Get<std::uint32_t>();
  std::uint64_t after = 0;
  for (std::uint32_t i = 0; i < count && in->ok(); ++i) {
    POS_RETURN_IF_ERROR(LoadOne(in, &after));
  }
  if (!in->ok()) return Corrupt("handle graph ends early");
  return CheckLoaded();
}

Status HandleGraph::CheckLoaded() const {
  if (count_ + free_.size() != places_.size()) {
    return Corrupt("handle graph: places do not add up");
  }
  // With the sum above: every place is either free, once, or used.
  std::vector<bool> is_free(places_.size());
  for (const std::uint32_t index : free_) {
    if (places_[index].used || is_free[index]) {
      return Corrupt("handle graph: a place is free twice, or used");
    }
    is_free[index] = true;
  }
  for (const Place& place : places_) {
    if (!place.used) continue;
    const Handle& handle = *place.handle;
    if (handle.released && (handle.alive || handle.children == 0)) {
      return Corrupt("handle graph: a handle that nothing holds");
    }
  }
  return {};
}

Status HandleGraph::LoadOne(ByteReader* in, std::uint64_t* after) {
  const auto id = in->Get<HandleId>();
  const std::uint32_t index = IndexOf(id);
  if (!in->ok() || index >= places_.size() || places_[index].used ||
      id != MakeId(KindOf(id), places_[index].generation, index) ||
      KindOf(id) == 0) {
    return Corrupt("handle graph: bad id");
  }
  Place& place = places_[index];
  place.handle = std::make_unique<Handle>();
  Handle* const handle = place.handle.get();
  handle->id = id;
  handle->kind = KindOf(id);
  for (Handle*& parent : handle->parents) {
    const auto parent_id = in->Get<HandleId>();
    if (parent_id == 0) continue;
    // Parents were created, and therefore saved, before their children.
    parent = At(IndexOf(parent_id));
    if (parent == nullptr || parent->id != parent_id) {
      return Corrupt("handle graph: a handle names an unknown parent");
    }
    ++parent->children;
  }
  place.used = true;
  ++count_;
  const auto state = in->Get<std::uint8_t>();
  handle->alive = (state & kAliveBit) != 0;
  handle->made = (state & kNotMadeBit) == 0;
  handle->released = in->Get<std::uint8_t>() != 0;
  handle->materialized = in->Get<std::uint8_t>() != 0;
  handle->created_at = in->Get<std::uint64_t>();
  if (handle->created_at <= *after || handle->created_at >= next_order_) {
    return Corrupt("handle graph: handles are not in order of creation");
  }
  *after = handle->created_at;
  handle->parser_word = in->Get<std::uint64_t>();
  POS_ASSIGN_OR_RETURN(handle->recipe, Recipe::Read(in));
  return {};
}

}  // namespace pos
