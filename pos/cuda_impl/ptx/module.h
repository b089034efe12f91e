// A parsed PTX translation unit.
//
//   Module::Parse(text) ──> Module ──┬─> LoadedModule (exec.h): runs its
//   kernels
//                                    └─> access analysis
//
// What is kept is the text's meaning: variables with their initial bytes,
// kernels with their parameters and limits, and every function body as parsed
// statements. Nothing refers to the text after Parse.
//
// Threads:   a Module is immutable; any number of threads may use it.
// Ownership: shared; everything reachable from it lives as long as it does.
// Blocking:  Parse costs time linear in the text (bounded depth, sizes and
//            counts: hostile text gives kInvalid, never a crash or a hang).
// Source:    PTX ISA 9.0.
//
// Test: tests/pos/cuda_impl/ptx/   Fuzzer: tests/fuzz/ptx_fuzz.cc
#ifndef POS_CUDA_IMPL_PTX_MODULE_H_
#define POS_CUDA_IMPL_PTX_MODULE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pos/base/status.h"

namespace pos::ptx {

namespace ast {
struct Unit;  // ast.h: the statements, for the decoder and the analysis
}  // namespace ast

enum class VariableSpace : std::uint8_t { kGlobal, kConst };

// A field of a variable's initial bytes that holds an address:
//   (address of the symbol + addend) >> shift, cut to `bytes` bytes.
struct Relocation {
  enum class Kind : std::uint8_t { kVariable, kFunction };
  std::uint64_t offset = 0;  // in the variable
  std::uint8_t bytes = 8;    // 1, 2, 4 or 8
  std::uint8_t shift = 0;    // from the mask operator 0xff00(symbol)
  Kind kind = Kind::kVariable;
  std::uint32_t symbol = 0;  // index into variables() or unit().functions
  std::int64_t addend = 0;
};

// One module-scope variable that occupies device memory.
struct Variable {
  std::string name;
  VariableSpace space = VariableSpace::kGlobal;
  bool managed = false;   // .attribute(.managed)
  bool external = false;  // .extern and defined nowhere in this module
  std::uint64_t bytes = 0;
  std::uint64_t alignment = 1;  // a power of two
  // The first bytes, at most `bytes`; the rest is zeros. Without relocations
  // applied (their fields hold zeros).
  std::vector<std::byte> initial;
  std::vector<Relocation> relocations;
};

struct Param {
  std::string name;
  std::uint32_t offset = 0;
  std::uint32_t size = 0;
  std::uint32_t alignment = 1;
};

// One kernel.
struct Entry {
  std::string name;
  std::vector<Param> params;       // in order; may be empty
  std::uint32_t params_bytes = 0;  // end of the last parameter
  // .shared of the kernel and of all functions it can call.
  std::uint32_t static_shared_bytes = 0;
  std::uint32_t local_bytes = 0;     // .local per thread, deepest call chain
  bool recursive = false;            // local_bytes counts one turn of a cycle
  bool uses_dynamic_shared = false;  // refers to an .extern .shared array
  bool prints = false;               // may call vprintf or __assertfail
  bool uses_heap = false;            // may call malloc or free
  // .maxntid or .reqntid as a number of threads, else 1024.
  std::uint32_t max_threads_per_block = 1024;
  std::uint32_t required_block[3] = {0, 0, 0};  // .reqntid; zeros: none
  std::uint32_t min_blocks_per_sm = 0;          // .minnctapersm; 0: none
  // 32-bit registers that a thread has in use at once, capped at 255: what
  // cuFuncGetAttribute reports. An estimate from the program's size, not an
  // allocation.
  std::uint32_t registers = 0;
  // Empty when this kernel can run. Else why not: which instruction, at which
  // line, in which function; also for what it calls, at any depth.
  std::string unsupported;
};

class Module {
 public:
  // CUDA 12.1 and later pass up to 32,764 bytes.
  static constexpr std::uint32_t kMaxParamBytes = 1u << 16;

  // kInvalid, with "line N: … near `token`", for text that is not PTX. An
  // instruction that is well formed but not implemented fails only the kernels
  // that contain it or can call it (Entry::unsupported).
  // `text` may end in NUL bytes.
  static Result<std::shared_ptr<const Module>> Parse(std::string_view text);
  // One module of several translation units (-rdc=true), linked by the names
  // of what is .visible, .weak or .extern; of .weak definitions the first.
  static Result<std::shared_ptr<const Module>> Link(
      std::span<const std::string_view> texts);

  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  ~Module();

  // .global and .const variables, in the order of the text. Unreferenced
  // one-byte tags that the compiler emits by the thousand are among them; their
  // size is theirs.
  [[nodiscard]] const std::vector<Variable>& variables() const;
  [[nodiscard]] const std::vector<Entry>& entries() const;
  // nullptr when there is none.
  [[nodiscard]] const Entry* FindEntry(std::string_view name) const;
  // .version and .target, e.g. 9, 0, 90.
  [[nodiscard]] int isa_major() const;
  [[nodiscard]] int isa_minor() const;
  [[nodiscard]] int target_sm() const;
  [[nodiscard]] const ast::Unit& unit() const { return *unit_; }

 private:
  explicit Module(std::unique_ptr<ast::Unit> unit);
  Status Describe();  // fills in what follows from the bodies

  std::unique_ptr<ast::Unit> unit_;
};

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_MODULE_H_
