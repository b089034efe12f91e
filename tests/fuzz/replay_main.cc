// Runs a fuzz target's function over the files of its corpus, so that every
// build checks the inputs that once failed, without libFuzzer.
//
//   TARGET_replay CORPUS-DIRECTORY
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "pos/base/files.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size);

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto names = pos::ListDirectory(argv[1]);
  if (!names.ok() || names->empty()) {
    std::fprintf(stderr, "no inputs in %s\n", argv[1]);
    return 1;
  }
  for (const std::string& name : *names) {
    const auto content = pos::ReadWholeFile(pos::JoinPath(argv[1], name));
    if (!content.ok()) {
      std::fprintf(stderr, "%s\n", content.status().ToString().c_str());
      return 1;
    }
    LLVMFuzzerTestOneInput(
        reinterpret_cast<const std::uint8_t*>(content->data()),
        content->size());
  }
  std::printf("%zu inputs\n", names->size());
  return 0;
}
