// Declarations: linkage, types, extents, variables, registers.
#include <algorithm>
#include <bit>
#include <string>
#include <string_view>
#include <utility>

#include "pos/cuda_impl/ptx/parser.h"

namespace pos::ptx {

bool Parser::ParseLinkage(Linkage* linkage) {
  while (true) {
    if (AtDirective(".extern")) {
      linkage->external = true;
    } else if (AtDirective(".common") || AtDirective(".weak")) {
      linkage->weak = true;
    } else if (AtDirective(".visible")) {
      linkage->visible = true;
    } else {
      return true;
    }
    Advance();
  }
}

// .attribute(.managed) and .attribute(.unified(1, 2), .noreturn)
bool Parser::ParseAttributes(bool* managed, bool* no_return) {
  Advance();
  if (!ExpectPunct('(')) return false;
  int depth = 1;
  while (depth > 0) {
    if (token_.kind == TokenKind::kEnd || token_.kind == TokenKind::kError) {
      return FailHere("an attribute list that does not end");
    }
    if (AtPunct('(')) ++depth;
    if (AtPunct(')')) --depth;
    if (AtDirective(".managed")) *managed = true;
    if (AtDirective(".noreturn")) *no_return = true;
    Advance();
  }
  return true;
}

// One word of a declaration's type; true also when it is none (type->type is
// then still kNone and the caller looks at the token).
bool Parser::ParseDeclWord(DeclType* type) {
  const std::string_view word = token_.text.substr(1);
  if (word == "align") {
    Advance();
    const Token at = token_;
    std::uint64_t value = 0;
    if (!ExpectInteger(&value)) return false;
    if (!std::has_single_bit(value) || value > 4096) {
      return Fail(at, "an alignment must be a power of two up to 4096");
    }
    // After .ptr it is what the pointer points to that is aligned.
    if (!type->pointer) type->alignment = static_cast<std::uint32_t>(value);
    return true;
  }
  if (word == "attribute") {
    bool ignored = false;
    return ParseAttributes(&type->managed, &ignored);
  }
  if (word == "v2" || word == "v4" || word == "v8") {
    type->lanes = static_cast<std::uint32_t>(word[1] - '0');
  } else if (word == "ptr") {
    type->pointer = true;
  } else if (word == "global" || word == "const" || word == "local" ||
             word == "shared" || word == "param") {
    // `.param .u64 .ptr .global .align 8 name`: a promise, not needed here.
  } else if (word == "texref" || word == "samplerref" || word == "surfref") {
    type->type = Type::kU64;
    type->opaque = true;
  } else {
    const Type found = TypeFromName(word);
    if (found == Type::kNone) return FailHere("not a type");
    type->type = found;
  }
  Advance();
  return true;
}

bool Parser::ParseDeclType(DeclType* type) {
  while (token_.kind == TokenKind::kDirective) {
    if (!ParseDeclWord(type)) return false;
  }
  if (type->type == Type::kNone) return FailHere("expected a type");
  if (type->alignment == 0) {
    type->alignment = std::max(1u, TypeBytes(type->type) * type->lanes);
  }
  return true;
}

// [4][8], [] or nothing.
bool Parser::ParseExtent(Extent* extent) {
  while (TakePunct('[')) {
    extent->is_array = true;
    if (TakePunct(']')) {
      if (extent->open) return FailHere("two dimensions without a size");
      extent->open = true;
      continue;
    }
    const Token at = token_;
    std::int64_t count = 0;
    if (!ParseConstant(&count) || !ExpectPunct(']')) return false;
    if (count < 0 || static_cast<std::uint64_t>(count) > kMaxVariableBytes) {
      return Fail(at, "an array of that size is not supported");
    }
    const auto factor = static_cast<std::uint64_t>(count);
    if (factor != 0 && extent->elements > kMaxVariableBytes / factor) {
      return Fail(at, "an array of that size is not supported");
    }
    extent->elements *= factor;
  }
  return true;
}

bool Parser::CheckBytes(const DeclType& type, const Extent& extent,
                        std::uint64_t limit, std::uint64_t* bytes) {
  // Both factors are at most 2^40 and 2^7: no overflow.
  *bytes = extent.elements * TypeBytes(type.type) * type.lanes;
  if (*bytes > limit) return FailHere("a variable too large to support");
  return true;
}

bool Parser::ParseVariables(Space space, const Linkage& linkage) {
  DeclType type;
  if (!ParseDeclType(&type)) return false;
  do {
    if (!ParseOneVariable(space, linkage, type)) return false;
  } while (TakePunct(','));
  return ExpectPunct(';');
}

bool Parser::ParseOneVariable(Space space, const Linkage& linkage,
                              const DeclType& type) {
  std::string_view name;
  Extent extent;
  if (!ExpectName(&name)) return false;
  if (AtPunct('<')) return FailHere("only registers can be a range");
  if (!ParseExtent(&extent)) return false;
  if (space == Space::kShared) return AddShared(linkage, type, name, extent);
  if (space == Space::kLocal || space == Space::kParam) {
    return AddBodyStorage(space, type, name, extent);
  }
  return AddModuleVariable(space, linkage, type, name, extent);
}

// A variable that no other text sees. Its name tells it from theirs, too.
void Parser::NameOwnVariable(std::string_view name, Variable* variable) {
  own_names_.insert(name);
  for (int copy = 1; variable_names_.count(variable->name) != 0; ++copy) {
    variable->name = std::string(name) + "$" + std::to_string(copy);
  }
}

bool Parser::AddModuleVariable(Space space, const Linkage& linkage,
                               const DeclType& type, std::string_view name,
                               Extent extent) {
  Variable variable;
  variable.name = std::string(name);
  variable.space =
      space == Space::kConst ? VariableSpace::kConst : VariableSpace::kGlobal;
  variable.managed = type.managed;
  variable.external = linkage.external;
  variable.alignment = type.alignment;
  // A name may be declared .extern first and defined later.
  const Binding* known = scopes_.top().Find(name);
  const bool again = known != nullptr &&
                     known->kind == ast::OperandKind::kVariable &&
                     (unit_->variables[known->index].external ||
                      linkage.external || linkage.weak);
  // Defined by an earlier text: this definition is read and left.
  const bool left = again && linkage.weak && !linkage.external &&
                    !unit_->variables[known->index].external;
  const std::size_t relocations_before = pending_relocations_.size();
  const auto number = again
                          ? known->index
                          : static_cast<std::uint32_t>(unit_->variables.size());
  if (!again) {
    if (!scopes_.top().Bind(name, {ast::OperandKind::kVariable, number, 1})) {
      return FailHere("this name is declared twice: " + variable.name);
    }
    unit_->variables.emplace_back();
    if (!linkage.Shared()) NameOwnVariable(name, &variable);
    variable_names_.insert(variable.name);
  }
  if (TakePunct('=')) {
    // The number of the variable must be known for relocations.
    pending_variable_ = number;
    std::uint64_t limit = 0;
    if (!CheckBytes(type, extent, kMaxVariableBytes, &limit)) return false;
    if (extent.open) limit = kMaxVariableBytes;
    std::uint64_t written = 0;
    if (!ParseInitializer(type, limit, &variable, &written)) {
      return false;
    }
    const std::uint32_t element = TypeBytes(type.type) * type.lanes;
    if (extent.open) {  // the other dimensions are in `written`
      extent.elements = (written + element - 1) / element;
    }
    variable.external = false;
  }
  if (!CheckBytes(type, extent, kMaxVariableBytes, &variable.bytes)) {
    return false;
  }
  if (extent.open && variable.initial.empty()) variable.bytes = 0;
  if (left) {
    pending_relocations_.resize(relocations_before);
    return true;
  }
  if (again && linkage.external) {  // declared or defined before
    if (variable.relocations.empty()) return true;
    return FailHere("an initial value of a variable of another module");
  }
  unit_->variables[number] = std::move(variable);
  return true;
}

bool Parser::AddShared(const Linkage& linkage, const DeclType& type,
                       std::string_view name, const Extent& extent) {
  ast::Storage storage;
  storage.name = std::string(name);
  storage.space = Space::kShared;
  storage.type = type.type;
  storage.alignment = type.alignment;
  storage.dynamic = extent.open || (linkage.external && extent.elements == 0);
  storage.module_scope = function_ == nullptr;
  if (!CheckBytes(type, extent, kMaxStorageBytes, &storage.bytes)) return false;
  if (storage.dynamic) storage.bytes = 0;
  const auto number = static_cast<std::uint32_t>(unit_->shared.size());
  if (!scopes_.top().Bind(name, {ast::OperandKind::kShared, number, 1})) {
    // The same .extern may be declared again.
    if (linkage.external || linkage.weak) return true;
    return FailHere("this name is declared twice: " + storage.name);
  }
  unit_->shared.push_back(std::move(storage));
  if (function_ == nullptr && !linkage.Shared()) own_names_.insert(name);
  return true;
}

bool Parser::AddBodyStorage(Space space, const DeclType& type,
                            std::string_view name, const Extent& extent) {
  if (function_ == nullptr) {
    return FailHere(".local and .param belong into a function");
  }
  ast::Storage storage;
  storage.name = std::string(name);
  storage.space = space;
  storage.type = type.type;
  storage.alignment = type.alignment;
  if (extent.open) return FailHere("an array without a size");
  if (!CheckBytes(type, extent, kMaxStorageBytes, &storage.bytes)) return false;
  const auto number = static_cast<std::uint32_t>(function_->variables.size());
  if (!scopes_.top().Bind(name, {ast::OperandKind::kLocal, number, 1})) {
    return FailHere("this name is declared twice: " + storage.name);
  }
  function_->variables.push_back(std::move(storage));
  return true;
}

// .reg .b32 %r<9>, %a, %b;
bool Parser::ParseRegisters() {
  DeclType type;
  if (!ParseDeclType(&type)) return false;
  do {
    std::string_view name;
    if (!ExpectName(&name) || !AddRegister(name, type)) return false;
  } while (TakePunct(','));
  return ExpectPunct(';');
}

bool Parser::AddRegister(std::string_view name, const DeclType& type) {
  std::uint64_t count = type.lanes;
  bool range = false;
  if (TakePunct('<')) {
    const Token at = token_;
    if (!ExpectInteger(&count) || !ExpectPunct('>')) return false;
    if (count > kMaxRegisters) {
      return Fail(at, "a function with that many registers is not supported");
    }
    range = true;
    if (type.lanes != 1) return Fail(at, "a range of vectors");
  }
  const std::uint32_t first = function_->register_count;
  if (first + count > kMaxRegisters) {
    return FailHere("a function with that many registers is not supported");
  }
  const auto total = static_cast<std::uint32_t>(count);
  const bool bound =
      range ? scopes_.top().BindRange(name, total, first)
            : scopes_.top().Bind(name,
                                 {ast::OperandKind::kRegister, first, total});
  if (!bound) {
    return FailHere("this register is declared twice: " + std::string(name));
  }
  function_->registers.push_back({first, total, type.type});
  function_->register_count += total;
  return true;
}

}  // namespace pos::ptx
