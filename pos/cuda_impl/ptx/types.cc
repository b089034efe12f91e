#include "pos/cuda_impl/ptx/types.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>

namespace pos::ptx {
namespace {

struct TypeRow {
  std::string_view name;
  std::uint32_t bytes;
  TypeClass klass;
};

constexpr TypeRow kTypes[] = {
    {"", 0, TypeClass::kBits},
#define POS_PTX_TYPE(id, name, bytes, klass) {name, bytes, TypeClass::klass},
#include "pos/cuda_impl/ptx/types.def"
#undef POS_PTX_TYPE
};

struct SpecialRow {
  std::string_view name;
  std::uint32_t bytes;
  SpecialWhere where;
};

constexpr SpecialRow kSpecials[] = {
#define POS_PTX_SPECIAL(id, name, bytes, where) \
  {name, bytes, SpecialWhere::where},
#include "pos/cuda_impl/ptx/specials.def"
#undef POS_PTX_SPECIAL
};

const TypeRow& Row(Type type) { return kTypes[static_cast<std::size_t>(type)]; }

const SpecialRow& Row(Special special) {
  return kSpecials[static_cast<std::size_t>(special)];
}

}  // namespace

Type TypeFromName(std::string_view name) {
  const auto* row = std::find_if(
      std::begin(kTypes) + 1, std::end(kTypes),
      [name](const TypeRow& candidate) { return candidate.name == name; });
  return row == std::end(kTypes) ? Type::kNone
                                 : static_cast<Type>(row - kTypes);
}

std::string_view TypeName(Type type) { return Row(type).name; }
std::uint32_t TypeBytes(Type type) { return Row(type).bytes; }
TypeClass ClassOf(Type type) { return Row(type).klass; }

Special SpecialFromName(std::string_view name) {
  if (!name.starts_with('%')) return Special::kCount;
  const auto* row = std::find_if(
      std::begin(kSpecials), std::end(kSpecials),
      [name](const SpecialRow& candidate) { return candidate.name == name; });
  return static_cast<Special>(row - kSpecials);
}

std::string_view SpecialName(Special special) { return Row(special).name; }
std::uint32_t SpecialBytes(Special special) { return Row(special).bytes; }
SpecialWhere WhereOf(Special special) { return Row(special).where; }

}  // namespace pos::ptx
