// PTX as a hostile client may send it: parsed, its variables' initial bytes
// made, its kernels decoded. It may be refused; nothing may crash, read outside
// or use memory or time without a bound.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "accepted.h"
#include "planted.h"
#include "pos/cuda_impl/ptx/ast.h"
#include "pos/cuda_impl/ptx/exec.h"
#include "pos/cuda_impl/ptx/module.h"
#include "ptx_lines.h"

using pos::fuzz::AcceptedInputs;

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data,
                                               std::size_t size,
                                               std::size_t max_size,
                                               unsigned seed) {
  return pos::fuzz::MutateLines(data, size, max_size, seed);
}

// Planted: a kernel that can be decoded, with a statement that no input of the
// corpus has.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parsed = pos::ptx::Module::Parse(text);
  if (!parsed.ok()) return 0;
  AcceptedInputs().Add(text);
  const pos::ptx::Module& module = **parsed;
  std::vector<std::uint64_t> addresses;
  for (std::size_t i = 0; i < module.variables().size(); ++i) {
    addresses.push_back(0x200000000000 + (i << 20));
  }
  pos::ptx::LoadedModule loaded(*parsed, addresses);
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    static_cast<void>(loaded.InitialBytes(i));
  }
  for (const pos::ptx::Entry& entry : module.entries()) {
    const auto kernel = loaded.GetKernel(entry.name);
    if (!kernel.ok()) continue;
    pos::fuzz::PlantedBug(std::ranges::any_of(
        module.unit().opcodes, [](const std::string& opcode) {
          return opcode == "brkpt" || opcode == "trap" || opcode == "membar.gl";
        }));
  }
  return 0;
}
