// Names of one `{ … }` block while it is parsed, and the chain of open blocks.
//
// Registers come as ranges (`.reg .b32 %r<9>;` declares %r0 … %r8), so a block
// keeps the prefixes; everything else is a name with a meaning. A name that is
// not declared yet may be a label further down: it gets a label at its first
// use, which is bound when the label appears in this block or, failing that, in
// one around it.
//
// Threads:   one, inside the parser.
// Ownership: names point into the text.
#ifndef POS_CUDA_IMPL_PTX_SCOPE_H_
#define POS_CUDA_IMPL_PTX_SCOPE_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "pos/cuda_impl/ptx/ast.h"

namespace pos::ptx {

// What a name means: an operand to start from. A register that is a vector
// (.v2, .v4) has `count` registers from `index`.
struct Binding {
  ast::OperandKind kind = ast::OperandKind::kUnknown;
  std::uint32_t index = 0;
  std::uint32_t count = 1;
};

class Scope {
 public:
  static constexpr std::size_t kMaxRanges = 256;

  // False when the block has the name already.
  bool Bind(std::string_view name, Binding binding);
  void Unbind(std::string_view name) { names_.erase(name); }
  // `prefix`<count>. False when the block has the prefix already, or kMaxRanges
  // of them.
  bool BindRange(std::string_view prefix, std::uint32_t count,
                 std::uint32_t first);
  // nullptr, or what this block (no other) says.
  const Binding* Find(std::string_view name);

  // Names used as labels and not seen yet, with the labels made for them.
  using Pending =
      std::unordered_map<std::string_view, std::vector<std::uint32_t>>;
  [[nodiscard]] Pending& pending() { return pending_; }
  void Clear();

 private:
  struct Range {
    std::string_view prefix;
    std::uint32_t count = 0;
    std::uint32_t first = 0;
  };
  std::vector<Range> ranges_;
  std::unordered_map<std::string_view, Binding> names_;
  Pending pending_;
  Binding in_range_;  // what Find returned for a register of a range
};

// The module's block and the open blocks of the function being parsed.
class ScopeStack {
 public:
  static constexpr std::size_t kMaxDepth = 256;

  ScopeStack() : scopes_(1) {}
  // False at the limit.
  bool Push();
  void Pop();  // not the module's
  [[nodiscard]] Scope& top() { return scopes_[depth_]; }
  [[nodiscard]] Scope& module() { return scopes_[0]; }
  [[nodiscard]] std::size_t depth() const { return depth_; }
  const Binding* Find(std::string_view name);

 private:
  std::vector<Scope> scopes_;  // grows; closed ones are kept for reuse
  std::size_t depth_ = 0;
};

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_SCOPE_H_
