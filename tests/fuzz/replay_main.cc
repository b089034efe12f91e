// Runs a fuzz target's function over the files of its corpus, so that every
// build checks the inputs that once failed, without libFuzzer.
//
//   TARGET_replay CORPUS-DIRECTORY...
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "pos/base/files.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size);

namespace {

// How many files it ran; negative after an error.
long RunDirectory(const char* directory) {
  const auto names = pos::ListDirectory(directory);
  if (!names.ok() || names->empty()) {
    std::fprintf(stderr, "no inputs in %s\n", directory);
    return -1;
  }
  for (const std::string& name : *names) {
    const auto content = pos::ReadWholeFile(pos::JoinPath(directory, name));
    if (!content.ok()) {
      std::fprintf(stderr, "%s\n", content.status().ToString().c_str());
      return -1;
    }
    LLVMFuzzerTestOneInput(
        reinterpret_cast<const std::uint8_t*>(content->data()),
        content->size());
  }
  return static_cast<long>(names->size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  long inputs = 0;
  for (int i = 1; i < argc; ++i) {
    const long count = RunDirectory(argv[i]);
    if (count < 0) return 1;
    inputs += count;
  }
  std::printf("%ld inputs\n", inputs);
  return 0;
}
