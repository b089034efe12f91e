#include "pos/cuda_impl/ptx/parser.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <system_error>
#include <utility>

namespace pos::ptx {
namespace {

// FNV-1a, 64 bits: tells texts apart, nothing more.
std::uint64_t HashTexts(std::span<const std::string_view> texts) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const std::string_view text : texts) {
    for (const char c : text) {
      hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
    }
  }
  return hash;
}

// Cuts what a token may be at a length that a message can show.
std::string Shown(std::string_view text) {
  constexpr std::size_t kMost = 40;
  if (text.size() <= kMost) return std::string(text);
  return std::string(text.substr(0, kMost)) + "…";
}

}  // namespace

Parser::Parser(std::span<const std::string_view> texts)
    : texts_(texts), lexer_(""), unit_(std::make_unique<ast::Unit>()) {
  unit_->hash = HashTexts(texts);
}

bool Parser::Run() {
  int sm = 0;
  for (const std::string_view text : texts_) {
    lexer_ = Lexer(text);
    unit_->sm = 0;
    if (!ParseText()) return false;
    sm = std::max(sm, unit_->sm);
    ForgetOwnNames();
  }
  unit_->sm = sm;
  return true;
}

void Parser::ForgetOwnNames() {
  for (const std::string_view name : own_names_) {
    scopes_.module().Unbind(name);
    function_names_.erase(name);
  }
  own_names_.clear();
}

bool Parser::ParseText() {
  Advance();
  if (!AtDirective(".version")) return FailHere("PTX begins with .version");
  while (token_.kind != TokenKind::kEnd) {
    if (!ParseModuleStatement()) return false;
  }
  if (unit_->sm == 0) return FailHere("PTX has a .target");
  return ResolveRelocations();
}

bool Parser::Fail(const Token& at, std::string_view what) {
  if (!status_.ok()) return false;
  std::string message = "PTX line " + std::to_string(at.line) + ": ";
  if (at.kind == TokenKind::kError) {
    message += at.error;
  } else {
    message += what;
  }
  message += at.kind == TokenKind::kEnd
                 ? std::string(", at the end of the text")
                 : ", near `" + Shown(at.text) + "`";
  status_ = Invalid(std::move(message));
  return false;
}

bool Parser::TakePunct(char c) {
  if (!AtPunct(c)) return false;
  Advance();
  return true;
}

bool Parser::ExpectPunct(char c) {
  if (TakePunct(c)) return true;
  const char quoted[] = {'`', c, '`', '\0'};
  return FailHere(std::string("expected ") + quoted);
}

bool Parser::ExpectInteger(std::uint64_t* value) {
  if (token_.kind != TokenKind::kInteger) {
    return FailHere("expected an integer");
  }
  *value = token_.value;
  Advance();
  return true;
}

bool Parser::ExpectName(std::string_view* name) {
  if (token_.kind != TokenKind::kIdentifier) return FailHere("expected a name");
  *name = token_.text;
  Advance();
  return true;
}

bool Parser::ParseVersion() {
  Advance();
  const std::string_view text = token_.text;
  const char* const end = text.data() + text.size();
  const auto major = std::from_chars(text.data(), end, unit_->major);
  if (major.ec != std::errc() || major.ptr == end || *major.ptr != '.' ||
      std::from_chars(major.ptr + 1, end, unit_->minor).ec != std::errc()) {
    return FailHere("expected a version such as 9.0");
  }
  Advance();
  return true;
}

// .target sm_90a, debug, …
bool Parser::ParseTarget() {
  do {
    Advance();
    std::string_view name;
    if (!ExpectName(&name)) return false;
    if (name.starts_with("sm_") || name.starts_with("compute_")) {
      const std::size_t digits = name.find('_') + 1;
      std::from_chars(name.data() + digits, name.data() + name.size(),
                      unit_->sm);
    }
  } while (AtPunct(','));
  return true;
}

// .section .debug_info { … }: nothing in it is code or data of a kernel.
bool Parser::SkipSection() {
  Advance();
  if (token_.kind != TokenKind::kDirective &&
      token_.kind != TokenKind::kIdentifier) {
    return FailHere("expected the name of a section");
  }
  Advance();
  if (!ExpectPunct('{')) return false;
  while (!AtPunct('}')) {
    if (token_.kind == TokenKind::kEnd || token_.kind == TokenKind::kError) {
      return FailHere("a section that does not end");
    }
    Advance();
  }
  Advance();
  return true;
}

// .loc file line column [, function_name label [+ n]] [, inlined_at f l c]
bool Parser::SkipLoc() {
  Advance();
  std::uint64_t ignored = 0;
  for (int i = 0; i < 3; ++i) {
    if (!ExpectInteger(&ignored)) return false;
  }
  while (TakePunct(',')) {
    std::string_view word;
    if (!ExpectName(&word)) return false;
    if (word == "function_name") {
      if (!ExpectName(&word)) return false;
      if (TakePunct('+') && !ExpectInteger(&ignored)) return false;
    } else if (word == "inlined_at") {
      for (int i = 0; i < 3; ++i) {
        if (!ExpectInteger(&ignored)) return false;
      }
    } else {
      return FailHere("expected function_name or inlined_at");
    }
  }
  return true;
}

// .file number "name" [, time, size]
bool Parser::SkipFile() {
  Advance();
  std::uint64_t ignored = 0;
  if (!ExpectInteger(&ignored)) return false;
  if (token_.kind != TokenKind::kString) {
    return FailHere("expected the name of a file");
  }
  Advance();
  while (TakePunct(',')) {
    if (!ExpectInteger(&ignored)) return false;
  }
  return true;
}

bool Parser::SkipToSemicolon() {
  while (!AtPunct(';')) {
    if (token_.kind == TokenKind::kEnd || token_.kind == TokenKind::kError) {
      return FailHere("a directive that does not end");
    }
    Advance();
  }
  Advance();
  return true;
}

// .alias name, function;
bool Parser::ParseAlias() {
  Advance();
  std::string_view name;
  if (!ExpectName(&name) || !ExpectPunct(',')) return false;
  const Token target = token_;
  std::string_view target_name;
  if (!ExpectName(&target_name) || !ExpectPunct(';')) return false;
  const auto found = function_names_.find(target_name);
  if (found == function_names_.end()) {
    return Fail(target, "an alias of a function that is not declared");
  }
  // The alias was declared before, as a function without a body.
  const auto known = function_names_.find(name);
  if (known != function_names_.end() && known->second != found->second) {
    unit_->aliases[known->second] = found->second;
  }
  return true;
}

bool Parser::ParseModuleStatement() {
  if (token_.kind == TokenKind::kError) return FailHere("");
  if (AtDirective(".version")) return ParseVersion();
  if (AtDirective(".target")) return ParseTarget();
  if (AtDirective(".address_size")) {
    Advance();
    std::uint64_t bits = 0;
    const Token at = token_;
    if (!ExpectInteger(&bits)) return false;
    if (bits != 64) return Fail(at, "only .address_size 64 is supported");
    return true;
  }
  if (AtDirective(".file")) return SkipFile();
  if (AtDirective(".section")) return SkipSection();
  if (AtDirective(".loc")) return SkipLoc();
  if (AtDirective(".pragma")) return SkipToSemicolon();
  if (AtDirective(".alias")) return ParseAlias();
  Linkage linkage;
  if (!ParseLinkage(&linkage)) return false;
  return ParseLinked(linkage);
}

bool Parser::ParseLinked(const Linkage& linkage) {
  if (AtDirective(".entry") || AtDirective(".func")) {
    const bool entry = AtDirective(".entry");
    Advance();
    return ParseFunction(entry, linkage);
  }
  Space space = Space::kReg;
  if (AtDirective(".global") || AtDirective(".tex")) space = Space::kGlobal;
  if (AtDirective(".const")) space = Space::kConst;
  if (AtDirective(".shared")) space = Space::kShared;
  if (space == Space::kReg) {
    return FailHere("expected a directive of module scope");
  }
  Advance();
  return ParseVariables(space, linkage);
}

}  // namespace pos::ptx
