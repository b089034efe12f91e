// What the parser makes of PTX text: names resolved, blocks flattened, nothing
// interpreted yet. The decoder (decode.h) and the access analysis start here.
//
// Threads:   plain data; read-only once Module::Parse has returned it.
// Ownership: everything owns its strings; nothing points into the text.
#ifndef POS_CUDA_IMPL_PTX_AST_H_
#define POS_CUDA_IMPL_PTX_AST_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "pos/cuda_impl/ptx/module.h"
#include "pos/cuda_impl/ptx/types.h"

namespace pos::ptx::ast {

inline constexpr std::uint32_t kNone = 0xffffffff;

enum class OperandKind : std::uint8_t {
  kRegister,   // index: register of the function
  kImmediate,  // value: integer, two's complement
  kFloat32,    // value: 32 bits
  kFloat64,    // value: 64 bits
  kVariable,   // index: into Unit::variables; value: offset added
  kShared,     // index: into Unit::shared; value: offset added
  kLocal,     // index: into Function::variables (.local, .param); value: offset
  kParam,     // index: into Function::params; value: offset added
  kReturn,    // index: into Function::returns; value: offset added
  kFunction,  // index: into Unit::functions
  kSpecial,   // index: a Special
  kLabel,     // index: into Function::labels
  kTable,     // index: into Function::tables (.branchtargets and the like)
  kSink,      // "_"
  kVector,    // index, count: elements in Function::operands: { … }
  kList,      // the same for ( … ) of calls
  kMemory,    // the same for [ … ]: element 0 is the base (value: its offset)
  kUnknown,   // a name that nothing declares; Function::unknown[index]
};

// Parts of a register that a video instruction names: "%r1.h0", "%r2.b7531".
struct Selector {
  std::uint8_t count = 0;  // 0: there is none
  bool halves = false;     // .h…, else .b…
  std::uint8_t digits[4] = {0, 0, 0, 0};
};

struct Operand {
  OperandKind kind = OperandKind::kSink;
  bool negated = false;      // "!%p"
  bool minus = false;        // "-%r" of a video instruction
  bool paired = false;       // followed by '|' and the next operand
  bool is_unsigned = false;  // the immediate has the suffix U
  Selector selector;         // of a register
  std::uint32_t index = 0;
  std::uint32_t count = 0;
  std::int64_t value = 0;
};

struct Instruction {
  std::uint32_t opcode = 0;  // index into Unit::opcodes
  std::uint32_t line = 0;
  std::uint32_t guard = kNone;  // predicate register
  bool guard_negated = false;
  std::uint32_t first_operand = 0;  // in Function::operands
  std::uint32_t operand_count = 0;
};

// One `.reg` declaration: registers first … first + count - 1.
struct RegisterRange {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
  Type type = Type::kNone;
};

// .local, .shared or .param array, or a formal parameter.
struct Storage {
  std::string name;
  Space space = Space::kLocal;
  Type type = Type::kB8;
  std::uint64_t bytes = 0;
  std::uint32_t alignment = 1;
  // Formal parameters that are registers (.reg): the register, else kNone.
  std::uint32_t reg = kNone;
  bool dynamic = false;  // .extern .shared x[]
  bool module_scope = false;
};

// .branchtargets and .calltargets: what; .callprototype: bytes of the formal
// parameters.
struct Table {
  enum class Kind : std::uint8_t { kBranches, kCalls, kPrototype };
  Kind kind = Kind::kBranches;
  std::vector<std::uint32_t> targets;  // labels or functions
  std::vector<Storage> returns;
  std::vector<Storage> params;
};

struct Label {
  std::uint32_t instruction = kNone;  // the first one after the label
};

struct Function {
  std::string name;
  std::uint32_t line = 0;
  bool entry = false;
  bool external = false;
  bool defined = false;  // has a body
  bool no_return = false;
  std::vector<Storage> returns;
  std::vector<Storage> params;
  std::vector<Storage> variables;  // .local and .param of the body
  std::vector<RegisterRange> registers;
  std::uint32_t register_count = 0;
  std::vector<Instruction> instructions;
  std::vector<Operand> operands;
  std::vector<Label> labels;
  std::vector<Table> tables;
  std::vector<std::string> unknown;
  std::vector<std::uint32_t> shared_used;  // ascending, in Unit::shared
  // Directives of performance and limits; zeros: not given.
  std::uint32_t max_threads[3] = {0, 0, 0};
  std::uint32_t required_threads[3] = {0, 0, 0};
  std::uint32_t min_blocks_per_sm = 0;
  bool cluster = false;  // .reqnctapercluster or .explicitcluster

  [[nodiscard]] std::span<const Operand> OperandsOf(
      const Instruction& instruction) const {
    return std::span(operands).subspan(instruction.first_operand,
                                       instruction.operand_count);
  }
  [[nodiscard]] std::span<const Operand> Elements(const Operand& group) const {
    return std::span(operands).subspan(group.index, group.count);
  }
  // kNone for a number that no declaration covers.
  [[nodiscard]] Type TypeOfRegister(std::uint32_t reg) const;
};

struct Unit {
  int major = 0;
  int minor = 0;
  int sm = 0;
  std::uint32_t address_bytes = 8;
  std::uint64_t hash = 0;  // of the text
  std::vector<Variable> variables;
  std::vector<Storage> shared;  // module scope and all bodies
  std::vector<Function> functions;
  std::vector<std::string> opcodes;  // distinct spellings
  std::unordered_map<std::string, std::uint32_t> entry_index;  // of entries
  // .alias: function number -> the function that it stands for.
  std::unordered_map<std::uint32_t, std::uint32_t> aliases;
  // Functions whose address is taken: what an indirect call may reach.
  std::vector<std::uint32_t> address_taken;
  std::vector<Entry> entries;
  std::vector<std::uint32_t> entry_functions;  // entries[i] is functions[…]
};

}  // namespace pos::ptx::ast

namespace pos::ptx {

// Where the .shared variables that a kernel and its callees use lie.
struct SharedLayout {
  static constexpr std::uint64_t kMaxBytes = 1ull << 24;  // far above any GPU's
  std::unordered_map<std::uint32_t, std::uint32_t> offsets;  // by Unit::shared
  std::uint64_t bytes = 0;  // static part, dynamic memory follows
  bool uses_dynamic = false;
  [[nodiscard]] std::uint32_t OffsetOf(std::uint32_t index) const {
    const auto found = offsets.find(index);
    return found == offsets.end() ? 0 : found->second;
  }
};
[[nodiscard]] SharedLayout LayOutShared(
    const ast::Unit& unit, const std::vector<std::uint32_t>& reach);

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_AST_H_
