// How many kernels of code images are proven, guessed and unknown.
//
//   kernel_shares [--list] FILE...
//
// FILE: PTX text, a fat binary or a cubin. Every file counts as one module; PTX
// is analysed whatever machine code stands next to it. With --list one line per
// kernel: basis, file, kernel, why it is not proven.
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/access/image_access.h"

namespace {

using pos::AccessBasis;

constexpr const char* kNames[] = {"proven", "guessed", "unknown"};

struct Shares {
  int kernels[3] = {0, 0, 0};
  int touches = 0;
  int bounded = 0;
  int files_without_ptx = 0;
};

std::vector<char> FileBytes(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void Count(const char* path, bool list, Shares* shares) {
  const std::vector<char> bytes = FileBytes(path);
  const auto image =
      pos::access::AnalyzeImage(std::as_bytes(std::span(bytes)), {120, false});
  const std::vector<std::string> names = image->Kernels();
  if (names.empty()) ++shares->files_without_ptx;
  for (const std::string& name : names) {
    const pos::access::KernelAccess* const kernel = image->Find(name);
    const auto basis = static_cast<std::size_t>(kernel->basis);
    ++shares->kernels[basis];
    if (kernel->basis == AccessBasis::kProven) {
      for (const auto& touch : kernel->touches) {
        ++shares->touches;
        if (touch.expr != 0) ++shares->bounded;
      }
    }
    if (list) {
      std::printf("%s\t%s\t%s\t%s\n", kNames[basis], path, name.c_str(),
                  kernel->reason.c_str());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Shares shares;
  bool list = false;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--list") {
      list = true;
    } else {
      Count(argv[i], list, &shares);
    }
  }
  const int all = shares.kernels[0] + shares.kernels[1] + shares.kernels[2];
  std::printf("%d kernels:", all);
  for (int i = 0; i < 3; ++i) {
    std::printf(" %d %s (%.1f %%)", shares.kernels[i], kNames[i],
                all == 0 ? 0.0 : 100.0 * shares.kernels[i] / all);
  }
  std::printf("; %d of %d places bounded; %d files without PTX kernels\n",
              shares.bounded, shares.touches, shares.files_without_ptx);
  return 0;
}
