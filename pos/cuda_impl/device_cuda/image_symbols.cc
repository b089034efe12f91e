#include "pos/cuda_impl/device_cuda/image_symbols.h"

#include <elf.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <optional>

#include "pos/cuda_impl/fatbin/cubin.h"

namespace pos::cuda_device {
namespace {

bool IsNameChar(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' ||
         c == '$' || c == '%';
}

// Statements of module scope: directives up to ';' or the end of a body,
// without comments and without what is in braces or quotes.
class PtxStatements {
 public:
  explicit PtxStatements(std::string_view text) : text_(text) {}

  bool Next(std::string* statement) {
    statement->clear();
    int depth = 0;
    while (at_ < text_.size()) {
      if (SkipComment()) continue;
      const char c = text_[at_++];
      if (c == '"') {
        while (at_ < text_.size() && text_[at_] != '"') ++at_;
        ++at_;
        continue;
      }
      if (c == '{') {
        ++depth;
        continue;
      }
      if (c == '}') {
        depth = std::max(0, depth - 1);
        // The end of a function's body, not of an initializer.
        if (depth == 0 && statement->find('=') == std::string::npos) {
          return true;
        }
        continue;
      }
      if (depth != 0) continue;
      if (c == ';') return true;
      statement->push_back(c);
    }
    return false;
  }

 private:
  bool SkipComment() {
    const std::string_view rest = text_.substr(at_);
    if (rest.starts_with("//")) {
      at_ += std::min(rest.find('\n'), rest.size());
      return true;
    }
    if (rest.starts_with("/*")) {
      const std::size_t end = rest.find("*/");
      at_ += end == std::string_view::npos ? rest.size() : end + 2;
      return true;
    }
    return false;
  }

  const std::string_view text_;
  std::size_t at_ = 0;
};

// Whether `word` occurs as a directive of its own.
bool HasWord(std::string_view statement, std::string_view word) {
  for (std::size_t at = statement.find(word); at != std::string_view::npos;
       at = statement.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    if (end >= statement.size() || !IsNameChar(statement[end])) return true;
  }
  return false;
}

// The name that a declarator ("zeros[128]", "x = 7", ".align 4 .u32 x") ends
// with.
std::string DeclaredName(std::string_view declarator) {
  declarator = declarator.substr(0, declarator.find_first_of("=["));
  std::size_t end = declarator.size();
  while (end > 0 && !IsNameChar(declarator[end - 1])) --end;
  std::size_t begin = end;
  while (begin > 0 && IsNameChar(declarator[begin - 1])) --begin;
  // A directive is no name.
  if (begin > 0 && declarator[begin - 1] == '.') return {};
  return std::string(declarator.substr(begin, end - begin));
}

// A structure at `offset`, if it is inside.
template <typename T>
std::optional<T> At(std::string_view bytes, std::uint64_t offset) {
  if (offset > bytes.size() || sizeof(T) > bytes.size() - offset) {
    return std::nullopt;
  }
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

std::string_view TextAt(std::string_view bytes, const Elf64_Shdr& strings,
                        std::uint64_t index) {
  if (strings.sh_offset > bytes.size() ||
      strings.sh_size > bytes.size() - strings.sh_offset ||
      index >= strings.sh_size) {
    return {};
  }
  const std::string_view rest =
      bytes.substr(strings.sh_offset + index, strings.sh_size - index);
  return rest.substr(0, rest.find('\0'));
}

}  // namespace

std::vector<ImageVariable> PtxVariables(std::string_view text) {
  std::vector<ImageVariable> variables;
  PtxStatements statements(text);
  std::string statement;
  while (statements.Next(&statement)) {
    const bool constant = HasWord(statement, ".const");
    if (!constant && !HasWord(statement, ".global")) continue;
    if (HasWord(statement, ".extern") || HasWord(statement, ".func") ||
        HasWord(statement, ".entry")) {
      continue;
    }
    const bool managed = statement.find(".managed") != std::string::npos;
    std::string_view rest = statement;
    while (!rest.empty()) {
      const std::size_t comma = rest.find(',');
      std::string name = DeclaredName(rest.substr(0, comma));
      if (!name.empty()) variables.push_back({name, constant, managed});
      rest = comma == std::string_view::npos ? std::string_view()
                                             : rest.substr(comma + 1);
    }
  }
  return variables;
}

std::vector<ImageVariable> CubinVariables(std::string_view elf) {
  std::vector<ImageVariable> variables;
  const auto header = At<Elf64_Ehdr>(elf, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
      header->e_shentsize != sizeof(Elf64_Shdr)) {
    return variables;
  }
  const auto section = [&](std::uint64_t i) {
    return i < header->e_shnum && header->e_shoff < elf.size()
               ? At<Elf64_Shdr>(elf, header->e_shoff + i * sizeof(Elf64_Shdr))
               : std::nullopt;
  };
  const auto names = section(header->e_shstrndx);
  for (std::uint64_t i = 0; names && i < header->e_shnum; ++i) {
    const auto symbols = section(i);
    if (!symbols || symbols->sh_type != SHT_SYMTAB) continue;
    const auto strings = section(symbols->sh_link);
    if (!strings) continue;
    for (std::uint64_t at = 0; at + sizeof(Elf64_Sym) <= symbols->sh_size;
         at += sizeof(Elf64_Sym)) {
      const auto symbol = At<Elf64_Sym>(elf, symbols->sh_offset + at);
      if (!symbol) break;
      if (ELF64_ST_TYPE(symbol->st_info) != STT_OBJECT) continue;
      const auto home = section(symbol->st_shndx);
      if (!home) continue;
      const std::string_view where = TextAt(elf, *names, home->sh_name);
      const bool constant = where.starts_with(".nv.constant3");
      if (!constant && !where.starts_with(".nv.global")) continue;
      const std::string_view name = TextAt(elf, *strings, symbol->st_name);
      if (!name.empty()) {
        variables.push_back({std::string(name), constant, false});
      }
    }
  }
  return variables;
}

bool NamesAny(std::string_view code, bool ptx,
              std::span<const std::string_view> names) {
  const auto in_name = [ptx](char c) {
    return ptx ? IsNameChar(c) : c != '\0';
  };
  for (const std::string_view name : names) {
    for (std::size_t at = code.find(name); at != std::string_view::npos;
         at = code.find(name, at + 1)) {
      const std::size_t end = at + name.size();
      if ((at == 0 || !in_name(code[at - 1])) &&
          (end == code.size() || !in_name(code[end]))) {
        return true;
      }
    }
  }
  return false;
}

bool NamesHeap(std::string_view code, bool ptx) {
  constexpr std::array<std::string_view, 2> kNames = {"malloc", "free"};
  return NamesAny(code, ptx, kNames);
}

bool NamesOutput(std::string_view code, bool ptx) {
  constexpr std::array<std::string_view, 2> kNames = {"vprintf",
                                                      "__assertfail"};
  return NamesAny(code, ptx, kNames);
}

ImageSymbols ReadSymbols(std::span<const fatbin::Entry> entries) {
  ImageSymbols symbols;
  std::map<std::string, ImageVariable> by_name;
  for (const fatbin::Entry& entry : entries) {
    if (entry.kind != fatbin::EntryKind::kPtx &&
        entry.kind != fatbin::EntryKind::kElf) {
      continue;
    }
    const Result<std::string> code = fatbin::ReadCode(entry);
    if (!code.ok()) continue;
    const bool ptx = entry.kind == fatbin::EntryKind::kPtx;
    symbols.uses_heap = symbols.uses_heap || NamesHeap(*code, ptx);
    symbols.prints = symbols.prints || NamesOutput(*code, ptx);
    for (ImageVariable& variable :
         ptx ? PtxVariables(*code) : CubinVariables(*code)) {
      ImageVariable& kept = by_name[variable.name];
      // PTX alone tells managed ones.
      variable.managed = variable.managed || kept.managed;
      kept = variable;
    }
    if (ptx) continue;
    const Result<fatbin::Cubin> cubin =
        fatbin::ReadCubin(std::as_bytes(std::span(*code)));
    if (!cubin.ok()) continue;
    for (const fatbin::CubinKernel& kernel : cubin->kernels) {
      std::vector<ParamInfo>& params = symbols.params[kernel.name];
      params.clear();
      for (const fatbin::CubinParam& param : kernel.params) {
        params.push_back({param.offset, param.bytes});
      }
    }
  }
  for (auto& [name, variable] : by_name) {
    symbols.variables.push_back(std::move(variable));
  }
  return symbols;
}

}  // namespace pos::cuda_device
