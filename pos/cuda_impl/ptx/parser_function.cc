// Heads of functions: name, formal parameters, directives.
#include <string>
#include <string_view>
#include <utility>

#include "pos/cuda_impl/ptx/parser.h"

namespace pos::ptx {

bool Parser::ParseFunction(bool entry, const Linkage& linkage) {
  ast::Function head;
  head.entry = entry;
  head.external = linkage.external;
  head.line = token_.line;
  std::string_view name;
  if (!ParseFunctionHead(entry, &head, &name)) return false;
  if (!ParseFunctionDirectives(&head)) return false;
  const bool defined = AtPunct('{');
  if (!defined && !ExpectPunct(';')) return false;
  head.defined = defined;
  std::uint32_t index = 0;
  if (!DeclareFunction(name, std::move(head), linkage, &index)) return false;
  if (!defined) return true;
  function_ = &unit_->functions[index];
  function_number_ = index;
  const bool ok = ParseBody();
  function_ = nullptr;
  if (function_names_.find(name)->second != index) {
    unit_->functions[index] = ast::Function();  // another text's counts
  }
  return ok;
}

bool Parser::ParseFunctionHead(bool entry, ast::Function* head,
                               std::string_view* name) {
  if (AtDirective(".attribute")) {
    bool managed = false;
    if (!ParseAttributes(&managed, &head->no_return)) return false;
  }
  if (!entry && AtPunct('(') && !ParseFormals(&head->returns)) return false;
  if (!ExpectName(name)) return false;
  head->name = std::string(*name);
  if (AtPunct('(') && !ParseFormals(&head->params)) return false;
  return true;
}

// ( formal, … )
bool Parser::ParseFormals(std::vector<ast::Storage>* formals) {
  Advance();
  if (TakePunct(')')) return true;
  do {
    ast::Storage formal;
    if (!ParseFormal(&formal)) return false;
    formals->push_back(std::move(formal));
  } while (TakePunct(','));
  return ExpectPunct(')');
}

// .param .align 8 .b8 name[44], .reg .b32 name, or "_" as a name
bool Parser::ParseFormal(ast::Storage* formal) {
  const bool reg = AtDirective(".reg");
  if (!reg && !AtDirective(".param")) {
    return FailHere("expected .param or .reg");
  }
  Advance();
  DeclType type;
  std::string_view name;
  Extent extent;
  if (!ParseDeclType(&type) || !ExpectName(&name) || !ParseExtent(&extent)) {
    return false;
  }
  formal->name = std::string(name);
  formal->space = reg ? Space::kReg : Space::kParam;
  formal->type = type.type;
  formal->alignment = type.alignment;
  if (extent.open) return FailHere("a parameter without a size");
  if (reg && (extent.is_array || type.lanes != 1)) {
    return FailHere("an array cannot be a register");
  }
  return CheckBytes(type, extent, kMaxStorageBytes, &formal->bytes);
}

bool Parser::ParseThreadCounts(std::uint32_t* counts) {
  for (int i = 0; i < 3; ++i) {
    const Token at = token_;
    std::uint64_t value = 0;
    if (!ExpectInteger(&value)) return false;
    if (value == 0 || value > 0x7fffffff) {
      return Fail(at, "not a number of threads");
    }
    counts[i] = static_cast<std::uint32_t>(value);
    if (!TakePunct(',')) {
      for (int rest = i + 1; rest < 3; ++rest) counts[rest] = 1;
      return true;
    }
  }
  return FailHere("more than three dimensions");
}

// What stands between the parameters and the body.
bool Parser::ParseFunctionDirectives(ast::Function* function) {
  while (token_.kind == TokenKind::kDirective) {
    const std::string_view word = token_.text;
    if (word == ".pragma") {
      if (!SkipToSemicolon()) return false;
      continue;
    }
    if (word == ".attribute") {
      bool managed = false;
      if (!ParseAttributes(&managed, &function->no_return)) return false;
      continue;
    }
    Advance();
    std::uint32_t ignored[3];
    if (word == ".maxntid") {
      if (!ParseThreadCounts(function->max_threads)) return false;
    } else if (word == ".reqntid") {
      if (!ParseThreadCounts(function->required_threads)) return false;
    } else if (word == ".minnctapersm") {
      if (!ParseThreadCounts(ignored)) return false;
      function->min_blocks_per_sm = ignored[0];
    } else if (word == ".reqnctapercluster") {
      if (!ParseThreadCounts(ignored)) return false;
      function->cluster = ignored[0] * ignored[1] * ignored[2] != 1;
    } else if (word == ".noreturn") {
      function->no_return = true;
    } else if (word == ".explicitcluster" || word == ".blocksareclusters") {
      // Matters only together with .reqnctapercluster.
    } else if (word == ".maxnreg" || word == ".maxnctapersm" ||
               word == ".maxclusterrank" || word == ".abi_preserve" ||
               word == ".abi_preserve_control") {
      if (!ParseThreadCounts(ignored)) return false;
    } else {
      return FailHere("not a directive of a function: " + std::string(word));
    }
  }
  return true;
}

// Enters a declaration or a definition; a definition replaces a declaration. A
// .weak one of what is defined already gets a number without a name.
bool Parser::DeclareFunction(std::string_view name, ast::Function head,
                             const Linkage& linkage, std::uint32_t* index) {
  const auto known = function_names_.find(name);
  const bool left = known != function_names_.end() && head.defined &&
                    linkage.weak && unit_->functions[known->second].defined;
  if (known == function_names_.end() || left) {
    if (unit_->functions.size() >= kMaxFunctions) {
      return FailHere("a module with that many functions is not supported");
    }
    *index = static_cast<std::uint32_t>(unit_->functions.size());
    function_names_.emplace(name, *index);
    if (!linkage.Shared()) own_names_.insert(name);
    unit_->functions.push_back(std::move(head));
    return true;
  }
  *index = known->second;
  if (linkage.Shared()) own_names_.erase(name);
  ast::Function& old = unit_->functions[*index];
  if (!head.defined) return true;
  if (old.defined) {
    return FailHere("this function is defined twice: " + old.name);
  }
  old = std::move(head);
  return true;
}

// Makes the formal parameters known in the body's outermost block.
bool Parser::BindFormals() {
  const auto bind = [this](std::vector<ast::Storage>* formals,
                           ast::OperandKind kind) {
    for (std::uint32_t i = 0; i < formals->size(); ++i) {
      ast::Storage& formal = (*formals)[i];
      // The names live as long as the unit: a Storage is not moved again.
      if (formal.name == "_") continue;
      Binding binding{kind, i, 1};
      if (formal.space == Space::kReg) {
        formal.reg = function_->register_count++;
        function_->registers.push_back({formal.reg, 1, formal.type});
        binding = {ast::OperandKind::kRegister, formal.reg, 1};
      }
      if (!scopes_.top().Bind(formal.name, binding)) {
        return FailHere("this parameter is declared twice: " + formal.name);
      }
    }
    return true;
  };
  return bind(&function_->returns, ast::OperandKind::kReturn) &&
         bind(&function_->params, ast::OperandKind::kParam);
}

}  // namespace pos::ptx
