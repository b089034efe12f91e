// The analysis of one kernel: an abstract interpretation of its body and of
// the functions that it calls. Within a basic block statements are executed in
// their order; between blocks order does not count: a register has one Value
// (value.h) there, the join of what all blocks leave in it. Blocks are executed
// until nothing changes. A function's formals are the join of what its call
// sites in this kernel pass.
//
//   analysis.cc            the fixpoint; what registers get
//   analysis_alu.cc        arithmetic
//   analysis_memory.cc     loads, stores, atomics, copies
//   analysis_call.cc       calls, functions of the driver
//
// Not looked at: what registers and local memory hold before they are written.
//
// Threads: one. Used once.
#ifndef POS_CUDA_IMPL_ACCESS_ANALYSIS_H_
#define POS_CUDA_IMPL_ACCESS_ANALYSIS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "pos/cuda_impl/access/cells.h"
#include "pos/cuda_impl/access/kernel_access.h"
#include "pos/cuda_impl/access/value.h"
#include "pos/cuda_impl/ptx/ast.h"
#include "pos/cuda_impl/ptx/call_graph.h"
#include "pos/cuda_impl/ptx/module.h"
#include "pos/cuda_impl/ptx/opcodes.h"

namespace pos::access {

// What the kernels of a module have in common.
struct ModuleContext {
  explicit ModuleContext(const ptx::Module& module);
  const ptx::Module& module;
  const ptx::ast::Unit& unit;
  std::vector<ptx::OpcodeInfo> opcodes;  // of unit.opcodes
  ptx::CallGraph graph;
  // What may still be done for all kernels together: statements, and what they
  // visit besides their operands. Bounds the time that hostile text can take.
  // Kernels that find none left are guessed.
  std::uint64_t steps_left = 20'000'000;
};

class Analysis {
 public:
  Analysis(ModuleContext* context, std::uint32_t entry);
  KernelAccess Run();

 private:
  using Operand = ptx::ast::Operand;
  using OperandKind = ptx::ast::OperandKind;

  static constexpr int kMaxRounds = 200;
  // Of all functions of one kernel; bounds the memory that frames take.
  static constexpr std::uint64_t kMaxRegisters = 1u << 20;
  // Registers of a block that are joined in the time of a statement.
  static constexpr std::size_t kRegistersPerStep = 8;

  struct Frame {
    std::uint32_t number = 0;  // in the unit
    const ptx::ast::Function* function = nullptr;
    bool kernel = false;
    std::vector<Value> registers;  // between blocks
    std::vector<Cells> variables;  // .local, .param
    std::vector<Cells> params;
    std::vector<Cells> returns;
    Cells stack;                // alloca
    std::vector<bool> leaders;  // instructions that labels stand before
    // Registers that the block has written so far, and what it left in them.
    std::vector<std::uint32_t> written;
    std::vector<bool> is_written;
    std::vector<Value> block;
  };
  enum AccessMode : std::uint8_t { kReads = 1, kWrites = 2, kAtomic = 7 };
  // An address in brackets.
  struct Address {
    Value value;
    const Operand* base = nullptr;
  };

  // ---- analysis.cc
  void Execute();
  void Step();
  void StepByShape(ptx::Shape shape);
  void Doubt(std::string_view why);
  void GiveUp(std::string_view why);
  void Charge(std::size_t steps);
  Value LoadCells(const Cells& cells, std::optional<std::int64_t> place,
                  std::uint32_t bytes, const Value& narrow);
  bool CopyCells(const Cells& from, Cells* to);
  std::string Where(std::string_view why) const;
  [[nodiscard]] const Value& RegisterOf(std::uint32_t number) const;
  void LeaveBlock();  // joins what the block left
  void EndBlock();    // the next statement is another block's
  Value Read(const Operand& operand);
  Value ReadSpecial(ptx::Special special);
  Value Symbolic(Symbol::Kind kind, std::uint32_t function, std::uint32_t index,
                 std::int64_t offset);
  Value NamedObject(Symbol::Kind kind, const Operand& operand);
  // `value` is known modulo 2^bits.
  void Write(const Operand& operand, const Value& value, std::uint32_t bits);
  // All registers of the first operand get a number that nothing is known of;
  // or one that may be an address.
  void WriteUnknown(bool foreign);
  void WriteNumbers(const Operand& operand, bool foreign);
  [[nodiscard]] std::uint32_t FirstSource() const;
  Value Narrow(ptx::Type type);
  Value UnknownOf(std::span<const Operand> operands);

  // ---- analysis_alu.cc
  void Alu();
  Value Integer(std::string_view base);
  Value Product(bool wide);
  Value Shifted(bool left);
  Value And(const Value& a, const Value& b);
  Value Or(const Value& a, const Value& b);
  Value Select(const Value& a, const Value& b);
  Value Least(ExprOp op);
  Value Mask(const Value& a, std::int64_t mask);
  Value Source(std::size_t number);
  ExprTable::Id Wide(const Value& value);
  Value NumberOf(ExprTable::Id offset);
  [[nodiscard]] std::uint32_t Bits() const;
  void Move();
  void Convert();
  void ConvertAddress();

  // ---- analysis_memory.cc
  Address AddressOf(const Operand& memory);
  void Touch(const Value& address, ptx::Space space, std::uint8_t mode,
             std::uint32_t bytes, bool anywhere);
  void TouchTerm(const Term& term, ptx::Space space, std::uint8_t mode,
                 std::uint32_t bytes, bool anywhere);
  void Record(const Term& term, std::uint32_t variable, std::uint8_t mode,
              std::uint32_t bytes, bool anywhere);
  void Load();
  void Store();
  void LoadParam();
  void StoreParam();
  void Atom(bool has_result);
  void CopyAsync();
  void CopyBulk();
  void Matrix(bool store);
  void Other();
  Value LoadOne(const Address& address, std::int64_t shift, ptx::Type type);
  void StoreOne(const Address& address, std::int64_t shift, std::uint32_t bytes,
                const Value& value);
  void SpoilAt(const Address& address);
  Cells* ParamCells(const Operand& base);
  Cells* LocalCells(const Symbol& symbol);
  Value KernelParam(const Operand& base, std::int64_t shift, ptx::Type type);
  std::span<const Operand> Elements(const Operand& data) const;
  std::optional<std::int64_t> PlaceOf(const Term& term, std::int64_t shift);

  // ---- analysis_call.cc
  void Call();
  void CallDriver(std::string_view name, std::span<const Operand> arguments,
                  const Operand* results);
  void Print(std::span<const Operand> arguments);
  void Pass(Frame* callee, std::span<const Operand> arguments);
  void Return(const Frame& callee, std::span<const Operand> results);
  bool PrintsStrings(const Value& format) const;

  // ---- result.cc
  void Conclude();
  std::uint32_t WordNumber(std::uint32_t offset);
  bool AddTouch(const KernelTouch& touch);
  bool AddVariable(std::uint32_t variable, KernelTouch* touch);
  std::uint32_t AddExpr(ExprTable::Id id);
  struct Seen {
    Term term;
    std::uint32_t variable = KernelTouch::kNoVariable;
    std::uint8_t mode = 0;
    std::uint32_t bytes = 0;
  };

  ModuleContext* const context_;
  const ptx::ast::Unit& unit_;
  const std::uint32_t entry_;
  ExprTable exprs_;
  Arithmetic arithmetic_{&exprs_};
  std::vector<Frame> frames_;  // [0] is the kernel
  std::unordered_map<std::uint32_t, std::size_t> frame_of_;
  std::vector<std::uint32_t> param_offsets_;  // of the kernel
  Cells shared_;
  bool changed_ = false;
  bool recording_ = false;

  // The statement being executed.
  Frame* frame_ = nullptr;
  const ptx::ast::Instruction* instruction_ = nullptr;
  const ptx::OpcodeInfo* info_ = nullptr;
  std::span<const Operand> operands_;

  std::vector<Seen> seen_;
  KernelAccess result_;
  std::unordered_map<ExprTable::Id, std::uint32_t> launch_exprs_;
  std::unordered_map<std::uint32_t, std::uint32_t> launch_variables_;
};

}  // namespace pos::access

#endif  // POS_CUDA_IMPL_ACCESS_ANALYSIS_H_
