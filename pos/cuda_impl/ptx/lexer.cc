#include "pos/cuda_impl/ptx/lexer.h"

#include <array>
#include <bit>
#include <charconv>
#include <string_view>
#include <system_error>

namespace pos::ptx {
namespace {

enum CharClass : std::uint8_t {
  kBlank = 1,
  kWordStart = 2,  // a letter, '_', '$' or '%'
  kDigit = 4,
  kHexDigit = 8,
};

constexpr std::array<std::uint8_t, 256> MakeClasses() {
  std::array<std::uint8_t, 256> table{};
  for (const char c : {' ', '\t', '\r', '\n', '\v', '\f', '\0'}) {
    table[static_cast<unsigned char>(c)] |= kBlank;
  }
  for (unsigned c = 'a'; c <= 'z'; ++c) table[c] |= kWordStart;
  for (unsigned c = 'A'; c <= 'Z'; ++c) table[c] |= kWordStart;
  for (const char c : {'_', '$', '%'}) {
    table[static_cast<unsigned char>(c)] |= kWordStart;
  }
  for (unsigned c = '0'; c <= '9'; ++c) table[c] |= kDigit | kHexDigit;
  for (unsigned c = 'a'; c <= 'f'; ++c) table[c] |= kHexDigit;
  for (unsigned c = 'A'; c <= 'F'; ++c) table[c] |= kHexDigit;
  return table;
}

constexpr std::array<std::uint8_t, 256> kClasses = MakeClasses();

bool Is(char c, std::uint8_t classes) {
  return (kClasses[static_cast<unsigned char>(c)] & classes) != 0;
}

bool IsWord(char c) { return Is(c, kWordStart | kDigit); }

}  // namespace

bool Lexer::SkipBlanks() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '\n') {
      ++line_;
      ++at_;
      line_start_ = true;
    } else if (Is(c, kBlank)) {
      ++at_;
    } else if ((c == '/' && Peek(1) == '/') || (c == '#' && line_start_)) {
      while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    } else if (c == '/' && Peek(1) == '*') {
      const std::size_t end = text_.find("*/", at_ + 2);
      if (end == std::string_view::npos) return false;
      for (; at_ < end + 2; ++at_) line_ += text_[at_] == '\n' ? 1 : 0;
    } else {
      break;
    }
  }
  return true;
}

Token Lexer::Next() {
  if (!SkipBlanks()) return Error("a comment that does not end", 2);
  line_start_ = false;
  if (at_ >= text_.size()) {
    Token end;
    end.line = line_;
    return end;
  }
  const char c = text_[at_];
  if (Is(c, kWordStart) && (c != '%' || IsWord(Peek(1)))) {
    return Word(TokenKind::kIdentifier);
  }
  if (Is(c, kDigit)) return Number();
  if (c == '.') {
    if (Is(Peek(1), kWordStart)) return Word(TokenKind::kDirective);
    if (Is(Peek(1), kDigit)) return Number();
  }
  if (c == '"') return String();
  if (std::string_view("()[]{}<>,;:|@!=+-*/%&^~?_.").find(c) ==
      std::string_view::npos) {
    return Error("a character that PTX does not use", 1);
  }
  Token token;
  token.kind = TokenKind::kPunct;
  token.punct = c;
  token.line = line_;
  token.text = text_.substr(at_, 1);
  ++at_;
  return token;
}

Token Lexer::Word(TokenKind kind) {
  const std::size_t begin = at_++;
  while (true) {
    while (IsWord(Peek(0))) ++at_;
    if (Peek(0) == ':' && Peek(1) == ':' && IsWord(Peek(2))) {
      at_ += 2;
    } else if (kind == TokenKind::kIdentifier && Peek(0) == '.' &&
               IsWord(Peek(1))) {
      ++at_;
    } else {
      break;
    }
  }
  Token token;
  token.kind = kind;
  token.line = line_;
  token.text = text_.substr(begin, at_ - begin);
  return token;
}

Token Lexer::Number() {
  const char second = Peek(1);
  if (Peek(0) == '0' &&
      (second == 'f' || second == 'F' || second == 'd' || second == 'D')) {
    return HexFloat(second);
  }
  int base = 10;
  std::size_t digits = at_;
  if (Peek(0) == '0') {
    if (second == 'x' || second == 'X') base = 16;
    if (second == 'b' || second == 'B') base = 2;
    if (Is(second, kDigit)) base = 8;
    digits += base == 10 ? 0u : base == 8 ? 1u : 2u;
  }
  std::size_t end = digits;
  while (end < text_.size() && Is(text_[end], kHexDigit)) {
    if (base != 16 && !Is(text_[end], kDigit)) break;
    ++end;
  }
  const char after = end < text_.size() ? text_[end] : '\0';
  if ((base == 10 || base == 8) &&
      (after == '.' || after == 'e' || after == 'E')) {
    return Decimal(end);
  }
  Token token;
  token.kind = TokenKind::kInteger;
  token.line = line_;
  const auto parsed = std::from_chars(text_.data() + digits, text_.data() + end,
                                      token.value, base);
  if (parsed.ec != std::errc() || parsed.ptr != text_.data() + end) {
    return Error("a number that 64 bits cannot hold", end - at_);
  }
  if (after == 'U' || after == 'u') {
    token.is_unsigned = true;
    ++end;
  }
  token.text = text_.substr(at_, end - at_);
  at_ = end;
  return token;
}

// 0f and eight hexadecimal digits, 0d and sixteen.
Token Lexer::HexFloat(char kind) {
  const bool single = kind == 'f' || kind == 'F';
  const std::size_t want = single ? 8 : 16;
  std::size_t end = at_ + 2;
  while (end < text_.size() && Is(text_[end], kHexDigit)) ++end;
  if (end - at_ - 2 != want) {
    return Error("a float with the wrong number of digits", end - at_);
  }
  Token token;
  token.kind = single ? TokenKind::kFloat32 : TokenKind::kFloat64;
  token.line = line_;
  token.text = text_.substr(at_, end - at_);
  std::from_chars(text_.data() + at_ + 2, text_.data() + end, token.value, 16);
  at_ = end;
  return token;
}

Token Lexer::Decimal(std::size_t end) {
  double value = 0;
  const auto parsed =
      std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
  // A value out of range still ends where its digits end.
  if (parsed.ec == std::errc::invalid_argument ||
      parsed.ptr < text_.data() + end) {
    return Error("not a number", end - at_);
  }
  const auto length = static_cast<std::size_t>(parsed.ptr - text_.data()) - at_;
  if (parsed.ec != std::errc()) return Error("a float out of range", length);
  Token token;
  token.kind = TokenKind::kFloat64;
  token.line = line_;
  token.text = text_.substr(at_, length);
  token.value = std::bit_cast<std::uint64_t>(value);
  at_ += length;
  return token;
}

Token Lexer::String() {
  const std::size_t end = text_.find_first_of("\"\n", at_ + 1);
  if (end == std::string_view::npos || text_[end] == '\n') {
    return Error("a string that does not end", 1);
  }
  Token token;
  token.kind = TokenKind::kString;
  token.line = line_;
  token.text = text_.substr(at_ + 1, end - at_ - 1);
  at_ = end + 1;
  return token;
}

Token Lexer::Error(const char* what, std::size_t length) {
  Token token;
  token.kind = TokenKind::kError;
  token.line = line_;
  token.text = text_.substr(at_, length);
  token.error = what;
  at_ = text_.size();
  return token;
}

}  // namespace pos::ptx
