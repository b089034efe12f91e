#include "pos/cuda_impl/ptx/decode.h"

#include <string>
#include <utility>

#include "pos/cuda_impl/ptx/control.h"
#include "pos/cuda_impl/ptx/layout.h"
#include "pos/cuda_impl/ptx/regalloc.h"

namespace pos::ptx {
namespace {

using Flow = LowInst::Flow;

// Operands have 30 bits for a byte offset.
constexpr std::uint32_t kMaxConstantBytes = 256u << 20;
constexpr std::uint32_t kMaxFrameBytes = 256u << 20;

// One function of the program, between lowering and emission.
struct Prepared {
  LowFunction low;
  std::vector<BasicBlock> blocks;
  std::vector<std::uint32_t> order;
  RegisterPlaces places;
  std::vector<std::uint32_t> block_start;  // index of Inst, by block
};

class Emitter {
 public:
  Emitter(Program* program, Prepared* function)
      : program_(*program), function_(*function) {}

  // Gives every block its place, from `at` on; returns the place after.
  std::uint32_t PlaceBlocks(std::uint32_t at);
  // Once the functions it calls have their places.
  void EmitCode();

 private:
  [[nodiscard]] bool NeedsJump(std::size_t position) const;
  void EmitBlock(std::size_t position);
  void EmitInst(const LowInst& low, std::uint32_t cost);
  void EmitGuard(const LowInst& low);
  Inst& Append(const LowInst& low, HandlerPair fn);
  void FillTarget(const LowInst& low, Inst* inst);
  void FillList(const LowInst& low, Inst* inst);
  std::uint32_t AddCall(const LowCall& low);
  std::uint32_t AddTable(std::uint32_t table);
  [[nodiscard]] std::uint32_t Operand(const Ref& ref) const;
  [[nodiscard]] std::uint32_t Offset(const Ref& ref) const {
    return ref.kind == Ref::Kind::kVirtual ? function_.places.offset[ref.value]
                                           : ref.value;
  }

  Program& program_;
  Prepared& function_;
  std::vector<std::uint32_t> block_of_label_;
};

std::uint32_t Emitter::Operand(const Ref& ref) const {
  if (ref.kind == Ref::Kind::kVirtual) {
    return function_.places.offset[ref.value] << 2 | kInFrame;
  }
  return ref.value;
}

// A block that is reached both ways needs the check for waiting fragments that
// branches make.
bool Emitter::NeedsJump(std::size_t position) const {
  const std::uint32_t number = function_.order[position];
  const BasicBlock& block = function_.blocks[number];
  if (block.fall == ast::kNone) return false;
  const bool next = position + 1 < function_.order.size() &&
                    function_.order[position + 1] == block.fall;
  if (!next) return true;
  return function_.low.code[block.end - 1].flow != Flow::kBranch &&
         function_.blocks[block.fall].predecessors > 1;
}

std::uint32_t Emitter::PlaceBlocks(std::uint32_t at) {
  function_.block_start.assign(function_.blocks.size(), 0);
  for (std::size_t i = 0; i < function_.order.size(); ++i) {
    const BasicBlock& block = function_.blocks[function_.order[i]];
    function_.block_start[function_.order[i]] = at;
    for (std::uint32_t n = block.begin; n < block.end; ++n) {
      const bool guarded = function_.low.code[n].guard.kind != Ref::Kind::kNone;
      at += guarded ? 2 : 1;
    }
    at += NeedsJump(i) ? 1 : 0;
  }
  return at;
}

void Emitter::EmitCode() {
  block_of_label_ = BlocksOfLabels(function_.low, function_.blocks);
  for (std::size_t i = 0; i < function_.order.size(); ++i) EmitBlock(i);
}

void Emitter::EmitBlock(std::size_t position) {
  const BasicBlock& block = function_.blocks[function_.order[position]];
  for (std::uint32_t n = block.begin; n < block.end; ++n) {
    const LowInst& low = function_.low.code[n];
    if (low.guard.kind != Ref::Kind::kNone) EmitGuard(low);
    EmitInst(low, n - block.begin + 1);
  }
  if (!NeedsJump(position)) return;
  const LowInst& last = function_.low.code[block.end - 1];
  Inst& jump = Append(last, {&control::Jump, &control::Jump});
  jump.imm = function_.block_start[block.fall];
  jump.cost = last.flow == Flow::kBranch ? 1 : block.end - block.begin;
}

Inst& Emitter::Append(const LowInst& low, HandlerPair fn) {
  program_.code.emplace_back();
  Inst& inst = program_.code.back();
  inst = Inst();
  inst.fn[0] = fn.full;
  inst.fn[1] = fn.partial;
  inst.source = static_cast<std::uint32_t>(program_.sources.size());
  program_.sources.push_back({function_.low.number, low.source});
  return inst;
}

void Emitter::EmitGuard(const LowInst& low) {
  Inst& inst = Append(low, {&control::Guard, &control::Guard});
  inst.a = Operand(low.guard);
  inst.flags = low.guard_negated ? kNegateA : 0u;
}

void Emitter::EmitInst(const LowInst& low, std::uint32_t cost) {
  const std::uint32_t slot = low.accesses ? program_.cache_slots++ : 0;
  Inst& inst = Append(low, low.fn);
  inst.d = Offset(low.d);
  inst.a = Operand(low.a);
  inst.b = Operand(low.b);
  inst.c = Operand(low.c);
  inst.e = Operand(low.e);
  inst.n = low.d2.kind == Ref::Kind::kNone ? low.n : Offset(low.d2);
  inst.cache = low.accesses ? slot : Operand(low.x);
  inst.imm = low.imm;
  inst.flags = low.flags;
  inst.cost = cost;
  if (low.list_count != 0) FillList(low, &inst);
  FillTarget(low, &inst);
}

void Emitter::FillList(const LowInst& low, Inst* inst) {
  inst->e = static_cast<std::uint32_t>(program_.lists.size());
  inst->n = low.list_count;
  for (std::uint32_t i = 0; i < low.list_count; ++i) {
    const Ref& ref = function_.low.lists[low.list_first + i];
    program_.lists.push_back(i < low.list_defined ? Offset(ref) : Operand(ref));
  }
}

void Emitter::FillTarget(const LowInst& low, Inst* inst) {
  switch (low.flow) {
    case Flow::kJump:
    case Flow::kBranch:
      inst->imm = function_.block_start[block_of_label_[low.target]];
      break;
    case Flow::kSwitch:
      inst->imm = AddTable(low.target);
      break;
    default:
      break;
  }
  if (low.fn.full != &control::Call && low.fn.full != &control::CallIndirect) {
    return;
  }
  const LowCall& call = function_.low.calls[static_cast<std::size_t>(low.imm)];
  inst->imm = AddCall(call);
  if (call.function != ast::kNone) {
    inst->n = program_.function_of_unit.find(call.function)->second;
  }
}

std::uint32_t Emitter::AddTable(std::uint32_t table) {
  std::vector<std::uint32_t> targets;
  for (const std::uint32_t label : function_.low.tables[table]) {
    targets.push_back(function_.block_start[block_of_label_[label]]);
  }
  program_.branch_tables.push_back(std::move(targets));
  return static_cast<std::uint32_t>(program_.branch_tables.size() - 1);
}

std::uint32_t Emitter::AddCall(const LowCall& low) {
  CallSite site;
  site.formal_bytes = low.formal_bytes;
  const auto convert = [this](const LowMove& move, bool result) {
    CallMove out;
    out.caller_is_register = move.reg.kind != Ref::Kind::kNone;
    out.caller = move.caller;
    if (out.caller_is_register) {
      out.caller = result ? Offset(move.reg) : Operand(move.reg);
    }
    out.callee = move.callee;
    out.bytes = move.bytes;
    return out;
  };
  for (const LowMove& move : low.arguments) {
    site.arguments.push_back(convert(move, false));
  }
  for (const LowMove& move : low.results) {
    site.results.push_back(convert(move, true));
  }
  program_.calls.push_back(std::move(site));
  return static_cast<std::uint32_t>(program_.calls.size() - 1);
}

Status Prepare(const LowerContext& context, std::uint32_t number,
               Prepared* out) {
  Lowering lowering(context, number);
  POS_RETURN_IF_ERROR(lowering.Run());
  out->low = lowering.Take();
  out->blocks = FindBlocks(out->low);
  std::vector<std::vector<std::uint32_t>> successors;
  for (const BasicBlock& block : out->blocks) {
    successors.push_back(block.successors);
  }
  out->order = LayOut(successors);
  out->places = AllocateRegisters(out->low, out->blocks, out->order);
  if (out->places.frame_bytes > kMaxFrameBytes) {
    return Incompatible("function " + context.unit->functions[number].name +
                        " needs more registers than are supported");
  }
  return OkStatus();
}

void EmitAll(std::vector<Prepared>* functions, Program* program) {
  std::vector<Emitter> emitters;
  std::uint32_t at = 0;
  for (Prepared& function : *functions) {
    emitters.emplace_back(program, &function);
    ProgramFunction described;
    described.unit_function = function.low.number;
    described.entry = at;
    described.frame_bytes = function.places.frame_bytes;
    described.param_bytes = function.low.param_bytes;
    described.local_bytes = function.low.local_bytes;
    described.formal_bytes = function.low.formal_bytes;
    program->takes_stack = program->takes_stack || function.low.takes_stack;
    described.zero = function.places.zero;
    program->functions.push_back(std::move(described));
    at = emitters.back().PlaceBlocks(at);
  }
  program->code.reserve(at + 1);
  for (Emitter& emitter : emitters) emitter.EmitCode();
  Inst end{};
  end.fn[0] = end.fn[1] = &control::OffTheEnd;
  end.source = static_cast<std::uint32_t>(program->sources.size());
  program->sources.push_back({(*functions)[0].low.number, 0});
  program->code.push_back(end);
}

}  // namespace

Result<std::unique_ptr<Program>> Decode(
    const ast::Unit& unit, const std::vector<std::uint32_t>& reach,
    const std::vector<std::uint64_t>& variable_addresses, const IsaTable& isa) {
  auto program = std::make_unique<Program>();
  ConstantPool constants;
  const SharedLayout shared = LayOutShared(unit, reach);
  std::vector<OpcodeInfo> opcodes(unit.opcodes.size());
  LowerContext context;
  context.unit = &unit;
  context.isa = &isa;
  context.variable_addresses = &variable_addresses;
  context.shared = &shared;
  context.constants = &constants;
  context.opcodes = &opcodes;
  std::vector<Prepared> functions;
  for (const std::uint32_t number : reach) {
    if (!unit.functions[number].defined) continue;  // one of the driver's
    program->function_of_unit.emplace(
        number, static_cast<std::uint32_t>(functions.size()));
    functions.emplace_back();
    POS_RETURN_IF_ERROR(Prepare(context, number, &functions.back()));
    if (constants.bytes() > kMaxConstantBytes) {
      return Incompatible("kernel " + unit.functions[reach[0]].name +
                          " has more constants than are supported");
    }
  }
  EmitAll(&functions, program.get());
  constants.Finish(program.get());
  program->static_shared_bytes = static_cast<std::uint32_t>(shared.bytes);
  program->run = isa.run;
  program->code_base = CodeAddress(unit, 0);
  return program;
}

}  // namespace pos::ptx
