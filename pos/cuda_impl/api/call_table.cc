#include <array>
#include <cstddef>

#include "pos/cuda_impl/api/calls.h"

namespace pos::cuda {
namespace {

constexpr std::size_t kMaxWireId = 0
#define POS_CALL(id, name, reply, payload, args, out) \
  +((id) > 0 ? std::size_t{1} : std::size_t{0})
#include "pos/cuda_impl/api/calls.def"
#undef POS_CALL
    ;

constexpr std::array<CallInfo, kMaxWireId + 1> MakeTable() {
  std::array<CallInfo, kMaxWireId + 1> table{};
#define POS_CALL(id, name, reply_by, payload_kind, args, out) \
  table[id] = CallInfo{id,                                    \
                       #name,                                 \
                       kWireBytes<name##Args>,                \
                       kWireBytes<name##Out>,                 \
                       ReplyBy::reply_by,                     \
                       Payload::payload_kind};
#include "pos/cuda_impl/api/calls.def"
#undef POS_CALL
  return table;
}

// Indexing past the end in a constant expression does not compile, and two rows
// with one id would leave a row without a name.
constexpr std::array<CallInfo, kMaxWireId + 1> kTable = MakeTable();
constexpr bool Dense() {
  for (std::size_t i = 1; i < kTable.size(); ++i) {
    if (kTable[i].name == nullptr) return false;
  }
  return true;
}
static_assert(Dense(), "wire ids in calls.def are 1, 2, 3, … without gaps");

}  // namespace

CallTable Calls() { return kTable; }

}  // namespace pos::cuda
