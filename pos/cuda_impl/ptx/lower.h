// From parsed statements to instructions of the interpreter with registers that
// are still virtual: types and modifiers have become handlers, addresses and
// immediates constants, guards of control flow branches. What follows is
// layout (layout.h), register allocation (regalloc.h) and emission (decode.h).
//
// Threads: one, per kernel that is decoded.
// Errors:  kIncompatible with the instruction, its line and what is wrong.
#ifndef POS_CUDA_IMPL_PTX_LOWER_H_
#define POS_CUDA_IMPL_PTX_LOWER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "pos/base/status.h"
#include "pos/cuda_impl/ptx/ast.h"
#include "pos/cuda_impl/ptx/constants.h"
#include "pos/cuda_impl/ptx/isa/isa.h"
#include "pos/cuda_impl/ptx/opcodes.h"
#include "pos/cuda_impl/ptx/program.h"

namespace pos::ptx {

// Registers of one class are as wide as each other and share places only among
// themselves.
enum class RegClass : std::uint8_t { kPred, k16, k32, k64, k128 };
constexpr std::size_t kRegClasses = 5;
// Bytes that one register of the class takes in a frame.
constexpr std::uint32_t kRegBytes[kRegClasses] = {4, 64, 128, 256, 512};

struct Ref {
  enum class Kind : std::uint8_t { kNone, kVirtual, kFixed };
  Kind kind = Kind::kNone;
  std::uint32_t value = 0;  // virtual register, or an operand as in Inst

  static Ref Virtual(std::uint32_t reg) { return {Kind::kVirtual, reg}; }
  static Ref Fixed(std::uint32_t operand) { return {Kind::kFixed, operand}; }
};

struct LowInst {
  enum class Flow : std::uint8_t {
    kNext,    // goes on to the next instruction
    kResume,  // the same, but lanes may wait before it goes on there
    kJump,    // to `target`
    kBranch,  // to `target` or the next
    kSwitch,  // to a label of branch table `target`
    kStop,    // does not go on here
  };
  HandlerPair fn;
  Flow flow = Flow::kNext;
  bool guard_negated = false;
  bool accesses = false;    // needs a slot of the allocation cache
  bool own_source = false;  // `e` and `n` are set; do not touch
  Ref guard;
  Ref d, d2;          // destinations
  Ref a, b, c, e, x;  // sources; x goes into Inst::cache
  std::uint32_t list_first = 0;
  std::uint32_t list_count = 0;
  std::uint32_t list_defined = 0;  // its first entries that are destinations
  std::uint32_t target = 0;        // label
  std::uint32_t flags = 0;
  std::uint32_t n = 0;  // Inst::n where there is neither d2 nor a list
  std::int64_t imm = 0;
  std::uint32_t source = 0;  // instruction of the ast::Function
};

// A result or argument of a call: LowFunction::calls.
struct LowMove {
  Ref reg;                   // kNone: parameter memory of the caller
  std::uint32_t caller = 0;  // offset there
  std::uint32_t callee = 0;
  std::uint32_t bytes = 0;
};
struct LowCall {
  std::vector<LowMove> arguments;
  std::vector<LowMove> results;
  std::uint32_t formal_bytes = 0;
  std::uint32_t function = ast::kNone;  // unit's number; kNone: indirect
  std::uint32_t instruction = 0;        // index in LowFunction::code
};

struct LowFunction {
  std::uint32_t number = 0;  // in the unit
  std::vector<LowInst> code;
  std::vector<Ref> lists;
  std::vector<RegClass> registers;
  std::vector<std::uint32_t> labels;  // instruction; code.size(): the end
  std::vector<std::vector<std::uint32_t>> tables;  // labels
  std::vector<LowCall> calls;
  std::uint32_t formal_bytes = 0;
  std::uint32_t param_bytes = 0;
  std::uint32_t local_bytes = 0;
  bool takes_stack = false;
};

// What lowering needs to know besides the function.
struct LowerContext {
  const ast::Unit* unit = nullptr;
  const IsaTable* isa = nullptr;
  const std::vector<std::uint64_t>* variable_addresses = nullptr;
  const SharedLayout* shared = nullptr;
  ConstantPool* constants = nullptr;
  std::vector<OpcodeInfo>* opcodes = nullptr;  // by unit opcode, lazily
};

// "Address" of a function for indirect calls.
[[nodiscard]] std::uint64_t CodeAddress(const ast::Unit& unit,
                                        std::uint32_t function);

// Offsets of results and parameters in a function's parameter bytes.
struct FormalLayout {
  std::vector<std::uint32_t> results;
  std::vector<std::uint32_t> params;
  std::uint32_t bytes = 0;
};
[[nodiscard]] FormalLayout LayOutFormals(
    const std::vector<ast::Storage>& results,
    const std::vector<ast::Storage>& params);

class Lowering {
 public:
  Lowering(const LowerContext& context, std::uint32_t function);
  Status Run();
  [[nodiscard]] LowFunction Take() { return std::move(out_); }

 private:
  using Operands = std::vector<ast::Operand>;

  // ---- lower.cc
  Status LowerInstruction(const ast::Instruction& instruction);
  Status Dispatch(const ast::Instruction& instruction);
  Status Fail(std::string_view what) const;
  Status PickHandler(LowInst* inst);
  std::uint32_t NewRegister(RegClass klass);
  std::uint32_t RegisterOf(std::uint32_t ast_register);
  [[nodiscard]] std::uint32_t WidthOf(const ast::Operand& operand) const;
  LowInst& Emit(LowInst inst);
  std::uint32_t NewLabel();
  void BindLabel(std::uint32_t label);
  std::uint32_t LabelOf(std::uint32_t ast_label);
  Status LayOutStorage();
  void CopyFormalsIn();
  void CopyResultsOut();
  // Inst::flags of an access to elements of `type` from registers of `width`.
  [[nodiscard]] static std::uint32_t ElementFlags(Type type,
                                                  std::uint32_t width);
  // Row of an instruction that lowering itself emits.
  [[nodiscard]] static std::uint32_t FindRow(std::string_view base,
                                             std::string_view words);
  [[nodiscard]] bool IsEntry() const { return function_.entry; }

  // ---- lower_operands.cc
  Status Source(const ast::Operand& operand, Type type, std::uint32_t width,
                Ref* out);
  // A selector or a minus where no video instruction is.
  Status CheckPlain(const ast::Operand& operand) const;
  Status ConstantSource(const ast::Operand& operand, Type type,
                        std::uint32_t width, Ref* out);
  Status AddressSource(const ast::Operand& operand, std::uint32_t width,
                       Ref* out);
  Status SpecialSource(Special special, std::uint32_t width, Ref* out);
  Status PredicateSource(const ast::Operand& operand, Ref* out);
  Status Destination(const ast::Operand& operand, std::uint32_t width,
                     Ref* out);
  Status PredicateDestination(const ast::Operand& operand, Ref* out);
  Ref Constant(std::uint32_t width, std::uint64_t bits);
  Status Widen(const Ref& from, std::uint32_t from_width,
               std::uint32_t to_width, Ref* out);
  Status Address(const ast::Operand& memory, Space space, Ref* base,
                 std::int64_t* offset);
  Status List(std::span<const ast::Operand> elements, std::uint32_t width,
              bool defines, Type type, LowInst* inst);

  // ---- lower_alu.cc
  Status LowerAlu();
  Status LowerBySignature(LowInst* inst);
  Status SignatureDestinations(std::string_view letters, std::size_t* at,
                               LowInst* inst);
  Status SignatureSources(std::string_view letters, std::size_t* at,
                          LowInst* inst);
  [[nodiscard]] std::uint32_t LetterWidth(char letter) const;
  [[nodiscard]] Type LetterType(char letter) const;
  Status LowerSetp();
  Status LowerMov();
  Status LowerMovVector(const ast::Operand& vector, const ast::Operand& scalar,
                        bool packs);
  Status LowerCvt();
  Status LowerPrmt();
  Status LowerCvta();

  // ---- lower_video.cc
  Status LowerVideo();
  Status LowerVideoSimd(std::uint32_t parts);
  Status LowerVideoScalar();

  // ---- lower_memory.cc
  Status LowerLoad();
  Status LowerStore();
  Status LowerLoadParam();
  Status LowerStoreParam();
  Status ParamPlace(const ast::Operand& memory, std::uint32_t bytes,
                    bool* kernel, std::int64_t* offset);
  [[nodiscard]] std::int64_t KernelParamOffset(std::uint32_t param) const;
  Status ParamData(const ast::Operand& data, bool defines, LowInst* inst);
  Status DataOperands(const ast::Operand& data, bool defines, LowInst* inst);
  Status LowerAtomic(std::span<const ast::Operand> operands, bool sinks);
  Status LowerAtom();
  Status LowerRed();

  // ---- lower_async.cc
  Status WholeAddress(const ast::Operand& memory, Space space, Ref* out);
  Status MbarrierAddress(const ast::Operand& memory, LowInst* inst);
  Status LowerMbarrier();
  Status LowerCopiesArrive();
  Status LowerCpAsync();
  Status LowerBulkCopy();
  Status LowerBulkZero();
  Status LowerCluster();

  // ---- lower_control.cc
  Status LowerBra();
  Status LowerBrx();
  Status LowerRet();
  Status LowerExit();
  Status LowerTrap();
  Status LowerCall();
  Status CallTarget(const ast::Operand& target, const FormalLayout& layout,
                    std::uint32_t call);
  Status CallMoves(const ast::Operand& list, bool results,
                   const std::vector<ast::Storage>& formals,
                   const std::vector<std::uint32_t>& offsets, LowCall* call);
  Status LowerBuiltin(std::string_view name, const ast::Operand* results,
                      const ast::Operand* arguments);
  Status LowerBarrier();
  void SaveStack();
  void RestoreStack();
  Status LowerStack();
  Status LowerFence();
  Status LowerNanosleep();
  Status LowerActivemask();
  [[nodiscard]] std::uint32_t CollectiveShape(std::string_view signature) const;
  Status LowerCollective();

  // ---- lower_matrix.cc
  Status Fragment(const ast::Operand& operand, std::uint32_t count, Type type,
                  bool defines, std::vector<Ref>* refs);
  void SetList(const std::vector<Ref>& refs, std::uint32_t defined,
               LowInst* inst);
  Status LowerMma();
  [[nodiscard]] std::uint32_t QuadLayouts() const;
  Status WmmaTile(std::uint32_t* flags, std::uint32_t* registers,
                  std::uint32_t* stride);
  Status LowerWmmaMemory(bool loads);
  Status LowerWmmaLoad();
  Status LowerWmmaStore();
  Status LowerMatrixRows(bool loads);
  Status LowerLdmatrix();
  Status LowerStmatrix();
  Status LowerMovmatrix();

  const LowerContext& context_;
  const ast::Function& function_;
  LowFunction out_;
  std::vector<std::uint32_t> register_of_;  // by ast register
  std::vector<std::uint32_t> label_of_;     // by ast label
  // Offsets of Function::variables: local bytes or parameter bytes.
  std::vector<std::uint32_t> variable_offset_;
  FormalLayout formals_;
  Ref saved_stack_;  // of a function with alloca, from its beginning
  // The instruction being lowered.
  const ast::Instruction* instruction_ = nullptr;
  const OpcodeInfo* info_ = nullptr;
  PickKey key_;
  std::span<const ast::Operand> operands_;
};

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_LOWER_H_
