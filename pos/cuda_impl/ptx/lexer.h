// Splits PTX text into tokens, one at a time.
//
// Comments, white space and lines that start with '#' (the preprocessor's line
// marks) are skipped. An identifier takes in what is glued to it by '.' or
// '::', so that "ld.global.L2::128B.v4.f32" and "%tid.x" are one token each; a
// word that starts with '.' is a directive or a type.
//
// Threads:   one.
// Ownership: tokens point into the text, which must outlive them.
#ifndef POS_CUDA_IMPL_PTX_LEXER_H_
#define POS_CUDA_IMPL_PTX_LEXER_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pos::ptx {

enum class TokenKind : std::uint8_t {
  kEnd,
  kIdentifier,  // text
  kDirective,   // text, with its leading '.'
  kInteger,     // value; is_unsigned when it has the suffix U
  kFloat32,     // 0f…: value holds the 32 bits
  kFloat64,     // 0d… or a decimal point: value holds the 64 bits
  kString,      // text between the quotes
  kPunct,       // one character, in `punct`
  kError,       // text says where; `error` says what
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  char punct = 0;
  bool is_unsigned = false;
  std::uint32_t line = 0;
  std::string_view text;
  std::uint64_t value = 0;
  const char* error = nullptr;
};

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  Token Next();
  // The character right after the last token, '\0' at the end: tells the
  // operator "<<" from "<".
  [[nodiscard]] char PeekPunct() const { return Peek(0); }

 private:
  // Everything up to the next token. False for a comment that does not end.
  bool SkipBlanks();
  Token Word(TokenKind kind);
  Token Number();
  Token HexFloat(char kind);
  Token Decimal(std::size_t end);
  Token String();
  Token Error(const char* what, std::size_t length);
  [[nodiscard]] char Peek(std::size_t ahead) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::uint32_t line_ = 1;
  bool line_start_ = true;
};

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_LEXER_H_
