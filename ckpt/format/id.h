// Names in a store: 128-bit random ids of stores and packs, and image ids that
// sort by age. ckpt/FORMAT.md, "An image on disk".
//
// Threads: values; the generators may be called by any thread.
#ifndef CKPT_FORMAT_ID_H_
#define CKPT_FORMAT_ID_H_

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "pos/base/status.h"

namespace pos::ckpt {

// Tag keeps ids of different things apart in the type system.
template <typename Tag>
struct RandomId {
  std::array<std::byte, 16> bytes{};
  friend auto operator<=>(const RandomId&, const RandomId&) = default;
};
using StoreId = RandomId<struct StoreTag>;
using PackId = RandomId<struct PackTag>;

[[nodiscard]] StoreId NewStoreId();
[[nodiscard]] PackId NewPackId();

// 32 lower-case hexadecimal digits, and back (kInvalid for anything else).
[[nodiscard]] std::string PackName(const PackId& id);
Result<PackId> ParsePackName(std::string_view name);

// "i", 8 characters of time, 2 random ones. `now_ms` is wall-clock time; what
// lies before 2020 counts as 2020.
[[nodiscard]] std::string NewImageId(std::uint64_t now_ms);
[[nodiscard]] bool IsImageId(std::string_view id);

}  // namespace pos::ckpt

#endif  // CKPT_FORMAT_ID_H_
