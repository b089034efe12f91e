// The session's handles: GPU resources as nodes, "is made from" as edges.
//
// A handle has two lives. The parser's: the id exists for the client from the
// creating call until the destroying one, both as the parser sees them. The
// worker's: the device object exists from when the worker executed the creation
// until it executed the destruction. The worker runs behind the parser, so a
// handle can be alive for one and not for the other; both are in an image.
//
// Ids are 64 bits: kind (8), generation (24), index (32), never 0. A stale id
//   (its handle was destroyed, the index reused) does not resolve.
// Threads:   Create, Resolve, Kill, Release: the parser thread, which alone
//   reads and writes the fields of Handle that are not the worker's. Fields
//   marked "worker" in Handle: the worker thread, which learns of a handle
//   through a context that the parser passed on. Save, Load, ForEach: while
//   both are paused.
// Ownership: the graph owns handles; their memory is stable and is reused only
//   after Reclaim, which the parser calls when the worker is done with it.
#ifndef POS_GRAPH_HANDLE_GRAPH_H_
#define POS_GRAPH_HANDLE_GRAPH_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/status.h"
#include "pos/graph/recipe.h"

namespace pos {

using HandleId = std::uint64_t;
// Meaning belongs to the API that is served; the core only compares it.
using HandleKind = std::uint8_t;

// What the worker keeps for a handle: the device's object and whatever else.
class HandleObject {
 public:
  virtual ~HandleObject() = default;
};

struct Handle {
  HandleId id = 0;
  HandleKind kind = 0;
  // Handles that this one is made from (a function: its module; a stream: its
  // context). A parent outlives its children on the worker's side.
  std::array<Handle*, 2> parents{};

  // Parser.
  bool alive = false;  // the client may name it, once it is `made`
  // The parser clears it for what the worker has yet to make, and sets it when
  // the worker says so, which is before the client learns the id. A client that
  // guesses one earlier names nothing.
  bool made = true;
  bool released = false;         // the worker is done with it
  std::uint32_t children = 0;    // handles whose parent this is
  std::uint64_t created_at = 0;  // order of creation within the session
  // What the API's parser remembers about it; saved as a number.
  std::uint64_t parser_word = 0;
  // Like parser_word, but for what does not fit; not saved.
  std::shared_ptr<void> parser_data;

  // Worker.
  bool materialized = false;
  std::unique_ptr<HandleObject> object;
  Recipe recipe;
};

class HandleGraph {
 public:
  HandleGraph() = default;
  HandleGraph(const HandleGraph&) = delete;
  HandleGraph& operator=(const HandleGraph&) = delete;

  // A new handle; nullptr when 2^24 are alive.
  Handle* Create(HandleKind kind, Handle* parent0 = nullptr,
                 Handle* parent1 = nullptr);
  // The living handle of that kind and id that is made, or nullptr.
  [[nodiscard]] Handle* Resolve(HandleKind kind, HandleId id) const;
  // The handle of that id, dead or alive; nullptr when it is gone.
  [[nodiscard]] Handle* Find(HandleId id) const;
  // The client can no longer name it. The worker may still hold it.
  void Kill(Handle* handle) { handle->alive = false; }
  // The worker is done with it too (and the client, if it was not before: the
  // creation failed). It goes when its last child has gone, since recipes of
  // children lean on their parents; then its index may be reused.
  void Release(Handle* handle);

  // In order of creation, dead ones included as long as they are not gone.
  void ForEach(const std::function<void(Handle*)>& visit) const;
  [[nodiscard]] std::size_t size() const { return count_; }

  static HandleKind KindOf(HandleId id) {
    return static_cast<HandleKind>(id >> 56);
  }

  // Everything but objects and parser_data. After Load every handle has its
  // id, parents, flags and recipe; `materialized` then says what the replay has
  // to make. kCorrupt leaves the graph unusable.
  void Save(ByteWriter* out) const;
  Status Load(ByteReader* in);

 private:
  struct Place {
    std::unique_ptr<Handle> handle;  // kept for reuse when free; may be null
    std::uint32_t generation = 0;
    bool used = false;
  };
  static constexpr std::uint32_t kMaxHandles = 1u << 24;
  [[nodiscard]] Handle* At(std::uint32_t index) const;
  static std::uint32_t IndexOf(HandleId id) {
    return static_cast<std::uint32_t>(id);
  }
  // `after`: creation order of the handle before; moved on.
  Status LoadOne(ByteReader* in, std::uint64_t* after);
  [[nodiscard]] Status CheckLoaded() const;
  void Remove(Handle* handle);

  std::vector<Place> places_;
  std::vector<std::uint32_t> free_;
  std::size_t count_ = 0;
  std::uint64_t next_order_ = 1;
};

}  // namespace pos

#endif  // POS_GRAPH_HANDLE_GRAPH_H_
