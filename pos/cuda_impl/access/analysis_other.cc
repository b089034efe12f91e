// Atomics, asynchronous copies, matrices, and what is rare.
#include "pos/cuda_impl/access/analysis.h"

namespace pos::access {

using ptx::Space;
using ptx::TypeBytes;

// atom d, [a], b [, c];  red [a], b;
void Analysis::Atom(bool has_result) {
  const std::size_t at = has_result ? 1 : 0;
  if (operands_.size() <= at) return GiveUp("an atomic without an address");
  const Address address = AddressOf(operands_[at]);
  const std::uint32_t bytes = TypeBytes(info_->key.type[0]);
  if (has_result) {
    if (bytes < 8) {
      Write(operands_[0], Narrow(info_->key.type[0]), 64);
    } else {
      WriteUnknown(true);
    }
  }
  SpoilAt(address);
  Touch(address.value, info_->key.space, kAtomic, bytes, false);
}

// cp.async…shared.global [to], [from], bytes …;
void Analysis::CopyAsync() {
  constexpr std::uint32_t kMostBytes = 16;
  if (operands_.size() < 2) return GiveUp("a copy that is not understood");
  changed_ = shared_.Spoil() || changed_;
  Touch(AddressOf(operands_[1]).value, Space::kGlobal, kReads, kMostBytes,
        false);
}

// cp.async.bulk.to.from [to], [from], bytes …;
void Analysis::CopyBulk() {
  if (operands_.size() < 2) return GiveUp("a copy that is not understood");
  changed_ = shared_.Spoil() || changed_;
  const bool to_global =
      !info_->words.empty() && info_->Has("global") && info_->Has("bulk_group");
  const bool from_global = info_->Has("global") && !to_global;
  if (to_global) {
    Touch(AddressOf(operands_[0]).value, Space::kGlobal, kWrites, 1, true);
  }
  if (from_global) {
    Touch(AddressOf(operands_[1]).value, Space::kGlobal, kReads, 1, true);
  }
}

// wmma.load {…}, [a], stride;  wmma.store [a], {…}, stride;
void Analysis::Matrix(bool store) {
  if (operands_.size() < 2) return GiveUp("a matrix that is not understood");
  const Address address = AddressOf(operands_[store ? 0 : 1]);
  if (store) {
    SpoilAt(address);
  } else {
    WriteUnknown(true);
  }
  Touch(address.value, info_->key.space, store ? kWrites : kReads, 1, true);
}

void Analysis::Other() {
  switch (ptx::GetOpcodeRow(info_->row).shape) {
    case ptx::Shape::kNothing:
      // What it discards holds anything afterwards.
      if (info_->base == "discard" && !operands_.empty()) {
        Touch(AddressOf(operands_[0]).value, info_->key.space, kWrites, 128,
              true);
      }
      return;
    case ptx::Shape::kStack:
      if (info_->base == "alloca" && !operands_.empty()) {
        Value stack =
            Symbolic(Symbol::Kind::kLocal, frame_->number, Symbol::kStack, 0);
        return Write(operands_[0], arithmetic_.Moved(stack), 64);
      }
      if (info_->base == "stacksave") WriteUnknown(true);
      return;
    case ptx::Shape::kCluster:
      if (info_->base == "mapa" && !operands_.empty()) {
        return Write(
            operands_[0],
            arithmetic_.Moved(Symbolic(Symbol::Kind::kShared, 0, 0, 0)), 64);
      }
      return WriteUnknown(false);
    case ptx::Shape::kMbarrier:
      changed_ = shared_.Spoil() || changed_;
      if (!operands_.empty() && operands_[0].kind != OperandKind::kMemory) {
        WriteUnknown(true);
      }
      return;
    case ptx::Shape::kActivemask:
    case ptx::Shape::kMma:
    case ptx::Shape::kLdmatrix:
    case ptx::Shape::kMovmatrix:
      return WriteUnknown(true);
    case ptx::Shape::kStmatrix:
    case ptx::Shape::kBulkZero:
      changed_ = shared_.Spoil() || changed_;
      return;
    default:
      return GiveUp("it is not known what this instruction does");
  }
}

}  // namespace pos::access
