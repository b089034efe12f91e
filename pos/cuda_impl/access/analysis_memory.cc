// What loads, stores and their kin touch, and what they carry.
#include "pos/cuda_impl/access/analysis.h"

namespace pos::access {

using ptx::Space;
using ptx::Type;
using ptx::TypeBytes;

Analysis::Address Analysis::AddressOf(const Operand& memory) {
  if (memory.kind != OperandKind::kMemory || memory.count == 0) {
    return {Value::Foreign(), nullptr};
  }
  const Operand& base = frame_->function->Elements(memory)[0];
  Address address{Read(base), &base};
  if (base.kind == OperandKind::kRegister && base.value != 0) {
    address.value = arithmetic_.Add(address.value,
                                    Value::Number(exprs_.Constant(base.value)));
  }
  return address;
}

// An access to global memory, or to what else a generic address leads to.
void Analysis::Touch(const Value& address, Space space, std::uint8_t mode,
                     std::uint32_t bytes, bool anywhere) {
  if (!recording_ || space == Space::kShared || space == Space::kLocal) return;
  if (address.empty()) Doubt("an address that nothing computes");
  for (const Term& term : address.terms()) {
    TouchTerm(term, space, mode, bytes, anywhere);
  }
}

void Analysis::TouchTerm(const Term& term, Space space, std::uint8_t mode,
                         std::uint32_t bytes, bool anywhere) {
  if (term.foreign) {
    return Doubt("an address that is loaded or put together");
  }
  const bool moved = !term.added.empty() || !term.subtracted.empty();
  switch (term.symbol.kind) {
    case Symbol::Kind::kVariable:
      return Record(term, term.symbol.index, mode, bytes, anywhere);
    case Symbol::Kind::kShared:
    case Symbol::Kind::kLocal:
      if (space == Space::kGeneric && !moved) return;
      return Doubt("global memory by another space's address");
    case Symbol::Kind::kParam:
      if (space == Space::kGeneric && !moved && (mode & kWrites) == 0) return;
      return Doubt("parameter memory by its address");
    case Symbol::Kind::kCode:
      return Doubt("memory by a code address");
    case Symbol::Kind::kNone:
      break;
  }
  if (term.added.empty()) return Doubt("an address without a pointer");
  Record(term, KernelTouch::kNoVariable, mode, bytes, anywhere);
}

void Analysis::Record(const Term& term, std::uint32_t variable,
                      std::uint8_t mode, std::uint32_t bytes, bool anywhere) {
  Seen seen{term, variable, mode, bytes};
  seen.term.symbol = Symbol();
  if (anywhere) seen.term.offset = ExprTable::kAny;
  seen_.push_back(seen);
}

std::optional<std::int64_t> Analysis::PlaceOf(const Term& term,
                                              std::int64_t shift) {
  std::int64_t place = 0;
  if (!term.added.empty() || !term.subtracted.empty() ||
      !exprs_.IsConstant(term.offset, &place)) {
    return std::nullopt;
  }
  return place + shift;
}

std::span<const ptx::ast::Operand> Analysis::Elements(
    const Operand& data) const {
  return data.kind == OperandKind::kVector ? frame_->function->Elements(data)
                                           : std::span<const Operand>(&data, 1);
}

Cells* Analysis::LocalCells(const Symbol& symbol) {
  Frame& frame = frames_[frame_of_.at(symbol.function)];
  return symbol.index == Symbol::kStack ? &frame.stack
                                        : &frame.variables[symbol.index];
}

// One element of a load.
Value Analysis::LoadOne(const Address& address, std::int64_t shift, Type type) {
  const std::uint32_t bytes = TypeBytes(type);
  const Value narrow = bytes < 8 ? Narrow(type) : Value::Foreign();
  const Space space = info_->key.space;
  if (bytes > 8) return narrow;
  if (space == Space::kShared) return LoadCells(shared_, {}, bytes, narrow);
  if (space == Space::kGlobal || space == Space::kConst) return narrow;
  Value loaded;
  for (const Term& term : address.value.terms()) {
    const auto place = PlaceOf(term, shift);
    if (term.symbol.kind == Symbol::Kind::kLocal) {
      loaded.Join(LoadCells(*LocalCells(term.symbol), place, bytes, narrow));
    } else if (term.symbol.kind == Symbol::Kind::kShared) {
      loaded.Join(LoadCells(shared_, {}, bytes, narrow));
    } else {
      loaded.Join(narrow);
    }
  }
  return loaded;
}

void Analysis::Load() {
  if (operands_.size() < 2) return WriteUnknown(true);
  const Address address = AddressOf(operands_[1]);
  const Type type = info_->key.type[0];
  const auto elements = Elements(operands_[0]);
  const std::uint32_t bytes = TypeBytes(type);
  // What was stored as a part of a register is known modulo that part.
  const bool own = info_->key.space == Space::kGeneric ||
                   info_->key.space == Space::kLocal ||
                   info_->key.space == Space::kShared;
  const std::uint32_t bits = own ? bytes * 8 : 64;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const auto shift = static_cast<std::int64_t>(i * bytes);
    Write(elements[i], LoadOne(address, shift, type), bits);
  }
  if (info_->key.space == Space::kLocal) {
    for (const Term& term : address.value.terms()) {
      if (term.symbol.kind != Symbol::Kind::kLocal) {
        Doubt("local memory by an address that is not known");
      }
    }
  }
  Touch(address.value, info_->key.space, kReads,
        bytes * static_cast<std::uint32_t>(elements.size()), false);
}

// One element of a store: what it leaves in memory of the kernel's own.
void Analysis::StoreOne(const Address& address, std::int64_t shift,
                        std::uint32_t bytes, const Value& value) {
  const Space space = info_->key.space;
  const auto store = [&](Cells* cells, std::optional<std::int64_t> place) {
    if (bytes <= 8) {
      changed_ = cells->Store(place, bytes, value) || changed_;
    } else {
      changed_ = cells->Spoil() || changed_;
    }
  };
  if (space == Space::kShared) return store(&shared_, {});
  if (space == Space::kGlobal) return;
  for (const Term& term : address.value.terms()) {
    if (term.symbol.kind == Symbol::Kind::kLocal) {
      store(LocalCells(term.symbol), PlaceOf(term, shift));
    } else if (term.symbol.kind == Symbol::Kind::kShared) {
      store(&shared_, {});
    } else if (space == Space::kLocal) {
      Doubt("local memory by an address that is not known");
    }
  }
}

void Analysis::Store() {
  if (operands_.size() < 2) return GiveUp("a store that is not understood");
  const Address address = AddressOf(operands_[0]);
  const auto elements = Elements(operands_[1]);
  const std::uint32_t bytes = TypeBytes(info_->key.type[0]);
  for (std::size_t i = 0; i < elements.size(); ++i) {
    StoreOne(address, static_cast<std::int64_t>(i * bytes), bytes,
             Read(elements[i]));
  }
  Touch(address.value, info_->key.space, kWrites,
        bytes * static_cast<std::uint32_t>(elements.size()), false);
}

// Something that is no address, or not all of one, is stored.
void Analysis::SpoilAt(const Address& address) {
  const Space space = info_->key.space;
  if (space == Space::kGlobal) return;
  if (space == Space::kShared) {
    changed_ = shared_.Spoil() || changed_;
    return;
  }
  for (const Term& term : address.value.terms()) {
    if (term.symbol.kind == Symbol::Kind::kLocal) {
      changed_ = LocalCells(term.symbol)->Spoil() || changed_;
    } else if (term.symbol.kind == Symbol::Kind::kShared) {
      changed_ = shared_.Spoil() || changed_;
    } else if (space == Space::kLocal) {
      Doubt("local memory by an address that is not known");
    }
  }
}

// Where a parameter that is named lies; nullptr: the kernel's own, or none.
Cells* Analysis::ParamCells(const Operand& base) {
  switch (base.kind) {
    case OperandKind::kParam:
      return frame_->kernel ? nullptr : &frame_->params[base.index];
    case OperandKind::kReturn:
      return &frame_->returns[base.index];
    case OperandKind::kLocal:
      if (frame_->function->variables[base.index].space != Space::kParam) {
        return nullptr;
      }
      return &frame_->variables[base.index];
    default:
      return nullptr;
  }
}

Value Analysis::KernelParam(const Operand& base, std::int64_t shift,
                            Type type) {
  const std::int64_t at = base.value + shift;
  const std::uint32_t bytes = TypeBytes(type);
  const auto& formal = frame_->function->params[base.index];
  if (at < 0 || static_cast<std::uint64_t>(at) + bytes > formal.bytes ||
      base.index >= param_offsets_.size()) {
    return Value::Foreign();
  }
  const auto offset =
      static_cast<std::uint32_t>(param_offsets_[base.index] + at);
  Term term;
  if (bytes == 8) {
    term.added.Add(offset);
    term.offset = exprs_.Constant(0);
    return Value(term);
  }
  if (bytes > 8) return Value::Foreign();
  const auto kind = ptx::ClassOf(type);
  if (kind != ptx::TypeClass::kFloat && kind != ptx::TypeClass::kPredicate) {
    term.offset =
        exprs_.Param(offset, bytes * 8, kind == ptx::TypeClass::kSigned);
  }
  // Part of something larger may be part of a pointer.
  if (formal.bytes > 4) term.involved.Add(offset & ~7u);
  return Value(term);
}

void Analysis::LoadParam() {
  if (operands_.size() != 2 || operands_[1].kind != OperandKind::kMemory ||
      operands_[1].count == 0) {
    return WriteUnknown(true);
  }
  const Operand& base = frame_->function->Elements(operands_[1])[0];
  const Type type = info_->key.type[0];
  const auto elements = Elements(operands_[0]);
  Cells* const cells = ParamCells(base);
  const bool own = frame_->kernel && base.kind == OperandKind::kParam;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const auto shift = static_cast<std::int64_t>(i * TypeBytes(type));
    Value value = Value::Foreign();
    if (own) {
      value = KernelParam(base, shift, type);
    } else if (cells != nullptr && TypeBytes(type) <= 8) {
      value = cells->Load(base.value + shift, TypeBytes(type), Narrow(type));
    }
    Write(elements[i], value, own ? 64 : TypeBytes(type) * 8);
  }
}

void Analysis::StoreParam() {
  if (operands_.size() != 2 || operands_[0].kind != OperandKind::kMemory ||
      operands_[0].count == 0) {
    return GiveUp("a store that is not understood");
  }
  const Operand& base = frame_->function->Elements(operands_[0])[0];
  Cells* const cells = ParamCells(base);
  if (cells == nullptr) return GiveUp("parameter memory by its address");
  const auto elements = Elements(operands_[1]);
  const std::uint32_t bytes = TypeBytes(info_->key.type[0]);
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const auto shift = static_cast<std::int64_t>(i * bytes);
    changed_ =
        (bytes <= 8 ? cells->Store(base.value + shift, bytes, Read(elements[i]))
                    : cells->Spoil()) ||
        changed_;
  }
}

}  // namespace pos::access
