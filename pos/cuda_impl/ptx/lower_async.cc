// Asynchronous copies, mbarriers, blocks of a cluster (async.h), the cluster's
// barrier.
#include "pos/cuda_impl/ptx/async.h"
#include "pos/cuda_impl/ptx/control.h"
#include "pos/cuda_impl/ptx/lower.h"

namespace pos::ptx {
namespace {

using ast::Operand;
using ast::OperandKind;
using async::MbarrierOp;

HandlerPair Same(Handler handler) { return {handler, handler}; }

// A cache policy that has no effect on the order of eviction: there is nothing
// to evict. (The bits are those of CU_ACCESS_PROPERTY_NORMAL as CUTLASS has
// them: EVICT_NORMAL in cute/arch/copy_sm90_desc.hpp.)
constexpr std::int64_t kNormalPolicy = 0x1000000000000000;

MbarrierOp OpOf(const OpcodeInfo& info) {
  const bool expects = info.Has("expect_tx");
  const bool open = info.Has("noComplete");
  if (info.Has("init")) return MbarrierOp::kInit;
  if (info.Has("inval")) return MbarrierOp::kInval;
  if (info.Has("complete_tx")) return MbarrierOp::kCompleteTx;
  if (info.Has("arrive_drop")) {
    return expects ? MbarrierOp::kDropExpect
           : open  ? MbarrierOp::kDropNoComplete
                   : MbarrierOp::kDrop;
  }
  if (info.Has("arrive")) {
    return expects ? MbarrierOp::kArriveExpect
           : open  ? MbarrierOp::kArriveNoComplete
                   : MbarrierOp::kArrive;
  }
  if (expects) return MbarrierOp::kExpectTx;
  return info.Has("parity") ? MbarrierOp::kWaitParity : MbarrierOp::kWaitState;
}

}  // namespace

// An address as one value, its offset added.
Status Lowering::WholeAddress(const Operand& memory, Space space, Ref* out) {
  Ref base;
  std::int64_t offset = 0;
  POS_RETURN_IF_ERROR(Address(memory, space, &base, &offset));
  *out = base;
  if (offset == 0) return OkStatus();
  const std::uint32_t width = space == Space::kShared ? 4 : 8;
  static const std::uint32_t kRow = FindRow("add", "u32");
  PickKey key;
  key.types = 1;
  key.type[0] = width == 4 ? Type::kU32 : Type::kU64;
  for (int i = 0; i < 3; ++i) key.width[i] = static_cast<std::uint8_t>(width);
  LowInst add;
  add.fn = context_.isa->pick(kRow, key);
  add.a = base;
  add.b = Constant(width, static_cast<std::uint64_t>(offset));
  add.d = Ref::Virtual(NewRegister(width == 4 ? RegClass::k32 : RegClass::k64));
  *out = add.d;
  Emit(add);
  return OkStatus();
}

Status Lowering::MbarrierAddress(const Operand& memory, LowInst* inst) {
  const bool generic = key_.space != Space::kShared;
  if (generic) inst->flags |= async::kMbarrierGeneric;
  return Address(memory, generic ? Space::kGeneric : Space::kShared, &inst->a,
                 &inst->imm);
}

// op [addr] {, value};  op state, [addr] {, count};
// op wait, [addr], state or parity {, time};
Status Lowering::LowerMbarrier() {
  LowInst inst;
  if (info_->Has("pending_count")) {
    if (operands_.size() != 2) return Fail("expected two operands");
    inst.fn = Same(&async::PendingCount);
    POS_RETURN_IF_ERROR(Destination(operands_[0], 4, &inst.d));
    POS_RETURN_IF_ERROR(Source(operands_[1], Type::kB64, 8, &inst.a));
    Emit(inst);
    return OkStatus();
  }
  const MbarrierOp op = OpOf(*info_);
  const bool waits =
      op == MbarrierOp::kWaitState || op == MbarrierOp::kWaitParity;
  const bool arrives = info_->Has("arrive") || info_->Has("arrive_drop");
  const bool tries = info_->Has("try_wait");
  const std::size_t at = waits || arrives ? 1 : 0;
  const std::size_t values = op == MbarrierOp::kInval ? 0 : 1;
  // The count of an arrival may be missing, and so may a time limit.
  const bool one = op == MbarrierOp::kArrive || op == MbarrierOp::kDrop;
  const std::size_t least = at + 1 + (one ? 0 : values);
  const std::size_t most = at + 1 + values + (tries ? 1 : 0);
  if (operands_.size() < least || operands_.size() > most) {
    return Fail("another number of operands");
  }
  inst.fn = Same(&async::DoMbarrier);
  inst.flags = static_cast<std::uint32_t>(op) << kHandlerShift |
               (tries ? async::kMbarrierTry : 0u);
  if (waits) {
    POS_RETURN_IF_ERROR(PredicateDestination(operands_[0], &inst.d));
  } else if (arrives) {
    POS_RETURN_IF_ERROR(Destination(operands_[0], 8, &inst.d));
  }
  POS_RETURN_IF_ERROR(MbarrierAddress(operands_[at], &inst));
  const bool state = op == MbarrierOp::kWaitState;
  if (operands_.size() > at + 1) {
    POS_RETURN_IF_ERROR(Source(operands_[at + 1],
                               state ? Type::kB64 : Type::kU32, state ? 8 : 4,
                               &inst.b));
  } else {
    inst.b = Constant(4, 1);
  }
  Emit(inst);
  return OkStatus();
}

// cp.async.mbarrier.arrive{.noinc} [addr];
Status Lowering::LowerCopiesArrive() {
  if (operands_.size() != 1) return Fail("expected one operand");
  LowInst inst;
  inst.fn = Same(&async::DoMbarrier);
  const MbarrierOp op =
      info_->Has("noinc") ? MbarrierOp::kArrive : MbarrierOp::kCopiesArrive;
  inst.flags = static_cast<std::uint32_t>(op) << kHandlerShift;
  inst.d = Ref::Virtual(NewRegister(RegClass::k64));
  inst.b = Constant(4, 1);
  POS_RETURN_IF_ERROR(MbarrierAddress(operands_[0], &inst));
  Emit(inst);
  return OkStatus();
}

// cp.async [dst], [src], bytes {, source bytes or predicate} {, policy};
Status Lowering::LowerCpAsync() {
  const std::size_t hint = info_->Has("L2::cache_hint") ? 1 : 0;
  if (operands_.size() < 3 + hint || operands_.size() > 4 + hint) {
    return Fail("another number of operands");
  }
  const Operand& bytes = operands_[2];
  const bool fits =
      bytes.value == 16 ||
      (info_->Has("ca") && (bytes.value == 4 || bytes.value == 8));
  if (bytes.kind != OperandKind::kImmediate || !fits) {
    return Fail("copies of 4, 8 or 16 bytes only, .cg of 16");
  }
  LowInst inst;
  inst.fn = Same(&async::Copy);
  inst.accesses = true;
  inst.n = static_cast<std::uint32_t>(bytes.value);
  std::int64_t to = 0;
  std::int64_t from = 0;
  POS_RETURN_IF_ERROR(Address(operands_[0], Space::kShared, &inst.a, &to));
  POS_RETURN_IF_ERROR(Address(operands_[1], Space::kGlobal, &inst.b, &from));
  if (from != static_cast<std::int32_t>(from)) {
    return Fail("an offset of more than 32 bits");
  }
  inst.imm = static_cast<std::int64_t>(static_cast<std::uint64_t>(from) << 32 |
                                       static_cast<std::uint32_t>(to));
  if (operands_.size() == 4 + hint) {
    const Operand& source = operands_[3];
    const bool predicate =
        source.kind == OperandKind::kRegister &&
        function_.TypeOfRegister(source.index) == Type::kPred;
    inst.flags = predicate ? async::kCopyHasIgnore : async::kCopyHasSize;
    if (source.negated) inst.flags |= kNegateC;
    POS_RETURN_IF_ERROR(predicate ? PredicateSource(source, &inst.c)
                                  : Source(source, Type::kU32, 4, &inst.c));
  }
  Emit(inst);
  return OkStatus();
}

// cp.async.bulk [dst], [src], size {, [mbar]} {, mask} {, policy};
Status Lowering::LowerBulkCopy() {
  const bool to_global = info_->Has("bulk_group");
  const bool from_shared = !to_global && !info_->Has("global");
  const bool blocks = info_->Has("multicast::cluster");
  const bool bytes = info_->Has("cp_mask");
  const std::size_t hint = info_->Has("L2::cache_hint") ? 1 : 0;
  const std::size_t barrier = to_global ? 0 : 1;
  const std::size_t mask = blocks || bytes ? 1 : 0;
  if (operands_.size() != 3 + barrier + mask + hint) {
    return Fail("another number of operands");
  }
  LowInst inst;
  inst.fn = Same(&async::BulkCopy);
  inst.flags = (to_global ? async::kBulkToGlobal : 0u) |
               (from_shared ? async::kBulkFromShared : 0u) |
               (blocks ? async::kBulkBlockMask : 0u) |
               (bytes ? async::kBulkByteMask : 0u);
  POS_RETURN_IF_ERROR(WholeAddress(
      operands_[0], to_global ? Space::kGlobal : Space::kShared, &inst.a));
  POS_RETURN_IF_ERROR(WholeAddress(
      operands_[1], to_global || from_shared ? Space::kShared : Space::kGlobal,
      &inst.b));
  POS_RETURN_IF_ERROR(Source(operands_[2], Type::kU32, 4, &inst.c));
  if (!to_global) {
    POS_RETURN_IF_ERROR(WholeAddress(operands_[3], Space::kShared, &inst.e));
  }
  if (mask != 0) {
    // After the mbarrier, but after the policy when there is none.
    const std::size_t at = bytes ? 3 + hint : 4;
    POS_RETURN_IF_ERROR(Source(operands_[at], Type::kB16, 2, &inst.x));
  }
  Emit(inst);
  return OkStatus();
}

// st.bulk [a], size, 0;
Status Lowering::LowerBulkZero() {
  if (operands_.size() != 3 || operands_[2].kind != OperandKind::kImmediate ||
      operands_[2].value != 0) {
    return Fail("expected an address, a size and 0");
  }
  LowInst inst;
  inst.fn = Same(&async::BulkZero);
  const bool generic = key_.space != Space::kShared;
  if (generic) inst.flags |= async::kMbarrierGeneric;
  POS_RETURN_IF_ERROR(WholeAddress(
      operands_[0], generic ? Space::kGeneric : Space::kShared, &inst.a));
  POS_RETURN_IF_ERROR(Source(operands_[1], Type::kU64, 8, &inst.b));
  Emit(inst);
  return OkStatus();
}

// mapa d, a, block;  getctarank d, a;  createpolicy d, …;
Status Lowering::LowerCluster() {
  if (operands_.empty()) return Fail("too few operands");
  LowInst inst;
  if (info_->base == "mapa") {
    if (operands_.size() != 3) return Fail("expected three operands");
    inst.fn = Same(&async::MapToBlock);
    inst.n = TypeBytes(key_.type[0]);
    POS_RETURN_IF_ERROR(Destination(operands_[0], inst.n, &inst.d));
    POS_RETURN_IF_ERROR(Source(operands_[1], key_.type[0], inst.n, &inst.a));
    POS_RETURN_IF_ERROR(Source(operands_[2], Type::kU32, 4, &inst.b));
  } else {
    const bool policy = info_->base == "createpolicy";
    inst.fn = Same(&async::SetConstant);
    inst.n = policy ? 8 : 4;
    inst.imm = policy ? kNormalPolicy : 0;
    POS_RETURN_IF_ERROR(Destination(operands_[0], inst.n, &inst.d));
  }
  Emit(inst);
  return OkStatus();
}

}  // namespace pos::ptx
