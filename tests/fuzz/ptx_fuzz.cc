// PTX as a hostile client may send it: parsed, its variables' initial bytes
// made, its kernels decoded. It may be refused; nothing may crash, read outside
// or use memory or time without a bound.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "accepted.h"
#include "planted.h"
#include "pos/cuda_impl/ptx/ast.h"
#include "pos/cuda_impl/ptx/exec.h"
#include "pos/cuda_impl/ptx/module.h"

namespace {

using pos::fuzz::AcceptedInputs;

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1);
    lines.push_back(text.substr(0, end + 1));
    text.remove_prefix(end + 1);
  }
  return lines;
}

constexpr std::string_view kStatements[] = {
    "trap;\n",
    "brkpt;\n",
    "membar.gl;\n",
    "pmevent 1;\n",
    "griddepcontrol.wait;\n",
    "exit;\n",
    "bar.sync 1, 64;\n",
    ".pragma \"nounroll\";\n",
    "{\n",
    "}\n",
    "L1:\n",
    "bra L1;\n",
    ".reg .b32 %x<4>;\n",
    "mov.u32 %x1, %x2;\n",
    "activemask.b32 %x3;\n",
    "add.s32 %x1, %x2, -1;\n",
    "setp.ne.s32 %p1, %r1, 0;\n",
    "@%p1 bra L1;\n",
    ".local .align 8 .b8 l[8];\n",
    ".shared .align 16 .b8 s[16];\n",
    "ld.v4.u8 {%r1,%r2,%r3,%r4}, [%d1];\n"};

// Takes out, repeats, moves or puts in lines; lines of other inputs, too.
std::string ChangeLines(const std::string& text, std::minstd_rand* random) {
  std::vector<std::string_view> lines = Lines(text);
  const std::vector<std::string_view> others =
      Lines(AcceptedInputs().Any(random));
  for (std::size_t n = (*random)() % 3 + 1; n > 0 && !lines.empty(); --n) {
    const auto at = static_cast<std::ptrdiff_t>((*random)() % lines.size());
    const std::string_view line = lines[(*random)() % lines.size()];
    switch ((*random)() % 5) {
      case 0:
        lines.erase(lines.begin() + at);
        break;
      case 1:
        lines.insert(lines.begin() + at, line);
        break;
      case 2:
        lines[static_cast<std::size_t>(at)] = line;
        break;
      case 3:
        lines.insert(lines.begin() + at, others[(*random)() % others.size()]);
        break;
      default:
        lines.insert(lines.begin() + at,
                     kStatements[(*random)() % std::size(kStatements)]);
        break;
    }
  }
  std::string changed;
  for (const std::string_view line : lines) changed += line;
  return changed;
}

}  // namespace

// Three of four from accepted inputs, by lines.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data,
                                               std::size_t size,
                                               std::size_t max_size,
                                               unsigned seed) {
  std::minstd_rand random(seed);
  if (AcceptedInputs().empty() || random() % 4 == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  const std::string text = ChangeLines(AcceptedInputs().Any(&random), &random);
  size = std::min(text.size(), max_size);
  std::copy_n(text.begin(), size, data);
  return random() % 3 == 0 ? LLVMFuzzerMutate(data, size, max_size) : size;
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
