// Memory that only the kernel itself sees (local, shared, parameters of calls),
// as far as addresses are put into it and taken out again: what was stored
// where, by constant offset where that is known.
//
// An address has eight bytes and is aligned, so a load of eight bytes finds
// either what one store of eight bytes left or something put together.
//
// Threads: plain data.
#ifndef POS_CUDA_IMPL_ACCESS_CELLS_H_
#define POS_CUDA_IMPL_ACCESS_CELLS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "pos/cuda_impl/access/value.h"

namespace pos::access {

class Cells {
 public:
  static constexpr std::size_t kMaxPlaced = 1024;

  // Places: bytes from the beginning, or anywhere. True when that added
  // something.
  bool Store(std::optional<std::int64_t> place, std::uint32_t bytes,
             const Value& value);
  // Something else was stored: a part of an address, bytes from elsewhere.
  bool Spoil();
  // All that a load may find; `narrow` is what a load of less than eight bytes
  // gives that finds anything but a whole store.
  [[nodiscard]] Value Load(std::optional<std::int64_t> place,
                           std::uint32_t bytes, const Value& narrow) const;
  // What is stored at known places in the other is stored here, too; the same
  // for the rest.
  bool Copy(const Cells& other);

  // How many values Load and Copy look at, at most.
  [[nodiscard]] std::size_t size() const { return placed_.size() + 1; }

 private:
  using Place = std::pair<std::int64_t, std::uint32_t>;  // offset, bytes
  std::map<Place, Value> placed_;
  Value loose_;           // eight bytes anywhere
  bool spoiled_ = false;  // less than eight bytes, anywhere
};

}  // namespace pos::access

#endif  // POS_CUDA_IMPL_ACCESS_CELLS_H_
