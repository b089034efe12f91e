// Recursive-descent parser from PTX text to ast::Unit. Module::Parse (module.h)
// is the interface; this class is its inside, spread over
//
//   parser.cc           tokens, errors, module-level directives
//   parser_decl.cc      variables and registers
//   parser_function.cc  function heads
//   parser_init.cc      constant expressions and initial values
//   parser_body.cc      statements and operands
//
// Threads:   one. Used once.
// Errors:    a method that returns false has left the reason in status().
// Limits:    nesting of blocks and expressions, registers, operands and bytes
//            of initial values are bounded; see the constants.
#ifndef POS_CUDA_IMPL_PTX_PARSER_H_
#define POS_CUDA_IMPL_PTX_PARSER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "pos/base/status.h"
#include "pos/cuda_impl/ptx/ast.h"
#include "pos/cuda_impl/ptx/lexer.h"
#include "pos/cuda_impl/ptx/scope.h"

namespace pos::ptx {

class Parser {
 public:
  static constexpr std::uint32_t kMaxRegisters = 1u << 22;  // per function
  static constexpr std::uint32_t kMaxFunctions = 1u << 16;
  static constexpr std::uint64_t kMaxVariableBytes = 1ull << 40;
  static constexpr std::uint64_t kMaxStorageBytes = 1ull << 30;
  static constexpr int kMaxExpressionDepth = 64;

  // Several texts are linked: they have in common what is .visible, .weak,
  // .common or .extern; other names are each text's own. Of several .weak
  // definitions the first one counts.
  explicit Parser(std::span<const std::string_view> texts);

  bool Run();
  [[nodiscard]] const Status& status() const { return status_; }
  [[nodiscard]] std::unique_ptr<ast::Unit> TakeUnit() {
    return std::move(unit_);
  }

 private:
  // A constant expression's value: an integer or a double.
  struct Value {
    enum class Kind : std::uint8_t { kInteger, kSingle, kDouble };
    Kind kind = Kind::kInteger;
    bool is_unsigned = false;
    std::uint64_t bits = 0;
  };
  // What stands before a declaration's type.
  struct Linkage {
    bool external = false;
    bool visible = false;
    bool weak = false;  // or .common
    [[nodiscard]] bool Shared() const { return external || visible || weak; }
  };
  // The part of a declaration between state space and name.
  struct DeclType {
    Type type = Type::kNone;
    std::uint32_t lanes = 1;      // .v2, .v4
    std::uint32_t alignment = 0;  // 0: the type's
    bool managed = false;
    bool pointer = false;  // .ptr
    bool opaque = false;   // .texref, .samplerref, .surfref
  };
  struct Extent {
    std::uint64_t elements = 1;
    bool is_array = false;
    bool open = false;  // "[]"
  };

  // ---- parser.cc
  bool ParseText();
  void ForgetOwnNames();
  void Advance() { token_ = lexer_.Next(); }
  bool Fail(const Token& at, std::string_view what);
  bool FailHere(std::string_view what) { return Fail(token_, what); }
  [[nodiscard]] bool AtPunct(char c) const {
    return token_.kind == TokenKind::kPunct && token_.punct == c;
  }
  [[nodiscard]] bool AtDirective(std::string_view text) const {
    return token_.kind == TokenKind::kDirective && token_.text == text;
  }
  bool TakePunct(char c);    // true and past it, or false
  bool ExpectPunct(char c);  // an error when it is not there
  bool ExpectInteger(std::uint64_t* value);
  bool ExpectName(std::string_view* name);
  bool ParseVersion();
  bool ParseTarget();
  bool SkipSection();
  bool SkipLoc();
  bool SkipToSemicolon();
  bool SkipFile();
  bool ParseAlias();
  bool ParseModuleStatement();
  bool ParseLinked(const Linkage& linkage);

  // ---- parser_decl.cc
  bool ParseLinkage(Linkage* linkage);
  bool ParseVariables(Space space, const Linkage& linkage);
  bool ParseOneVariable(Space space, const Linkage& linkage,
                        const DeclType& type);
  bool AddModuleVariable(Space space, const Linkage& linkage,
                         const DeclType& type, std::string_view name,
                         Extent extent);
  void NameOwnVariable(std::string_view name, Variable* variable);
  bool AddShared(const Linkage& linkage, const DeclType& type,
                 std::string_view name, const Extent& extent);
  bool AddBodyStorage(Space space, const DeclType& type, std::string_view name,
                      const Extent& extent);
  bool ParseRegisters();
  bool AddRegister(std::string_view name, const DeclType& type);
  bool ParseDeclType(DeclType* type);
  bool ParseDeclWord(DeclType* type);
  bool ParseExtent(Extent* extent);
  bool CheckBytes(const DeclType& type, const Extent& extent,
                  std::uint64_t limit, std::uint64_t* bytes);
  bool ParseAttributes(bool* managed, bool* no_return);

  // ---- parser_function.cc
  bool ParseFunction(bool entry, const Linkage& linkage);
  bool ParseFunctionHead(bool entry, ast::Function* head,
                         std::string_view* name);
  bool ParseFormals(std::vector<ast::Storage>* formals);
  bool ParseFormal(ast::Storage* formal);
  bool ParseFunctionDirectives(ast::Function* function);
  bool ParseThreadCounts(std::uint32_t* counts);
  bool DeclareFunction(std::string_view name, ast::Function head,
                       const Linkage& linkage, std::uint32_t* index);
  bool BindFormals();

  // ---- parser_init.cc
  bool ParseExpression(Value* value) { return ParseBinary(0, 0, value); }
  bool ParseBinary(int min_level, int depth, Value* value);
  bool ParseUnary(int depth, Value* value);
  bool ParsePrimary(int depth, Value* value);
  bool ParseConstant(std::int64_t* value);  // an integer expression
  bool ApplyUnary(char op, Value* value);
  bool ApplyBinary(const char* op, const Value& right, Value* left);
  bool ParseInitializer(const DeclType& type, std::uint64_t limit,
                        Variable* variable, std::uint64_t* written);
  bool ParseInitList(const DeclType& type, std::uint64_t limit, int depth,
                     Variable* variable, std::uint64_t* at);
  bool ParseInitElement(const DeclType& type, std::uint64_t limit,
                        Variable* variable, std::uint64_t* at);
  bool ParseInitSymbol(std::uint64_t mask, const DeclType& type,
                       std::uint64_t limit, Variable* variable,
                       std::uint64_t* at);
  bool PutInitial(const DeclType& type, const Value& value, std::uint64_t limit,
                  Variable* variable, std::uint64_t* at);
  bool ResolveRelocations();

  // ---- parser_body.cc
  bool ParseBody();
  bool ParseStatement();
  bool ParseBodyDirective();
  bool ParseLabelled(const Token& name);
  bool ParseTable(std::uint32_t table);
  bool DefineLabel(const Token& name);
  bool CloseScope();
  bool ParseInstruction(std::uint32_t guard, bool negated);
  bool ParseGuard(std::uint32_t* guard, bool* negated);
  std::uint32_t InternOpcode(std::string_view text);
  bool ParseOperand(int depth, std::vector<ast::Operand>* out);
  bool ParsePrimaryOperand(int depth, std::vector<ast::Operand>* out);
  [[nodiscard]] bool NextIsIdentifier() const;
  bool ParseGroup(char close, ast::OperandKind kind, int depth,
                  ast::Operand* out);
  bool ParseNamedOperand(ast::Operand* out);
  bool ParseOffset(ast::Operand* out);
  void UseName(const Token& name, ast::Operand* out);
  std::uint32_t LabelFor(std::string_view name);

  const std::span<const std::string_view> texts_;
  // Names of module scope that a text has for itself, until it ends.
  std::unordered_set<std::string_view> own_names_;
  std::unordered_set<std::string> variable_names_;  // of all texts
  Lexer lexer_;
  Token token_;
  Status status_;
  std::unique_ptr<ast::Unit> unit_;
  ScopeStack scopes_;
  ast::Function* function_ = nullptr;  // the one whose body is being parsed
  std::uint32_t function_number_ = 0;
  std::unordered_map<std::string_view, std::uint32_t> opcode_index_;
  std::unordered_map<std::string_view, std::uint32_t> function_names_;
  // Names in initial values, resolved at the end: they may be declared later.
  struct PendingRelocation {
    std::uint32_t variable = 0;
    std::uint32_t relocation = 0;
    Token name;
  };
  std::vector<PendingRelocation> pending_relocations_;
  std::uint32_t pending_variable_ = 0;  // whose initial value is being parsed
};

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_PARSER_H_
