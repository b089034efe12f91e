// Data types, state spaces and special registers of PTX.
//
// Threads: constants only.
#ifndef POS_CUDA_IMPL_PTX_TYPES_H_
#define POS_CUDA_IMPL_PTX_TYPES_H_

#include <cstdint>
#include <string_view>

namespace pos::ptx {

enum class TypeClass : std::uint8_t {
  kBits,
  kUnsigned,
  kSigned,
  kFloat,
  kPredicate
};

enum class Type : std::uint8_t {
  kNone,
#define POS_PTX_TYPE(id, name, bytes, klass) id,
#include "pos/cuda_impl/ptx/types.def"
#undef POS_PTX_TYPE
};

// kNone for a word that is no type. `name` has no leading '.'.
[[nodiscard]] Type TypeFromName(std::string_view name);
[[nodiscard]] std::string_view TypeName(Type type);
[[nodiscard]] std::uint32_t TypeBytes(Type type);  // 0 for kNone
[[nodiscard]] TypeClass ClassOf(Type type);

enum class Space : std::uint8_t {
  kGeneric,  // none named
  kGlobal,
  kConst,
  kShared,
  kLocal,
  kParam,
  kReg,
};

enum class Special : std::uint8_t {
#define POS_PTX_SPECIAL(id, name, bytes, where) id,
#include "pos/cuda_impl/ptx/specials.def"
#undef POS_PTX_SPECIAL
  kCount
};

enum class SpecialWhere : std::uint8_t { kConst, kLaunch, kWarp, kRead };

// kCount for a name that is none.
[[nodiscard]] Special SpecialFromName(std::string_view name);
[[nodiscard]] std::string_view SpecialName(Special special);
[[nodiscard]] std::uint32_t SpecialBytes(Special special);
[[nodiscard]] SpecialWhere WhereOf(Special special);

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_TYPES_H_
