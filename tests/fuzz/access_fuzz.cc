// The access analysis on PTX as a hostile client may send it: every kernel is
// analysed and launched once on memory that is made up. Nothing may crash, read
// outside or use memory or time without a bound, and what is proven names
// ranges inside of the memory that there is.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "accepted.h"
#include "planted.h"
#include "pos/cuda_impl/access/image_access.h"
#include "ptx_lines.h"

namespace {

using pos::fuzz::AcceptedInputs;

constexpr std::uint64_t kBase = 0x7f0000000000;
constexpr std::uint64_t kBytes = 1u << 20;

class Memory final : public pos::access::MemoryMap {
 public:
  Found Find(pos::DeviceAddress address,
             pos::MemoryRange* range) const override {
    if (address - kBase >= kBytes) return Found::kNothing;
    *range = {kBase, kBytes};
    return Found::kDevice;
  }
};

bool Inside(const pos::MemoryRange& range) {
  return range.address >= kBase && range.bytes <= kBytes &&
         range.address - kBase <= kBytes - range.bytes;
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data,
                                               std::size_t size,
                                               std::size_t max_size,
                                               unsigned seed) {
  return pos::fuzz::MutateLines(data, size, max_size, seed);
}

// Planted: a kernel that is proven to write, with a statement that no input of
// the corpus has.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto image = pos::access::AnalyzeImage(bytes, {90, false});
  const std::vector<std::string> kernels = image->Kernels();
  if (kernels.empty()) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  AcceptedInputs().Add(text);
  std::array<std::uint64_t, 8> params{};
  for (std::size_t i = 0; i < params.size(); ++i) {
    params[i] = i % 3 == 2 ? i : kBase + 4096 * i;
  }
  pos::AccessSet set;
  for (const std::string& name : kernels) {
    const pos::access::KernelAccess* const kernel = image->Find(name);
    const std::vector<pos::MemoryRange> variables(kernel->variables.size(),
                                                  {kBase, 64});
    pos::access::EvaluateLaunch(*kernel, {{3, 2, 1}, {32, 4, 1}},
                                std::as_bytes(std::span(params)), Memory(),
                                variables, &set);
    for (const auto* const ranges : {&set.reads, &set.writes}) {
      for (const pos::MemoryRange& range : *ranges) {
        if (!Inside(range)) std::abort();
      }
    }
    pos::fuzz::PlantedBug(set.basis == pos::AccessBasis::kProven &&
                          !set.writes.empty() &&
                          (text.find("brkpt") != std::string_view::npos ||
                           text.find("membar.gl") != std::string_view::npos));
  }
  return 0;
}
