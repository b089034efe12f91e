// Decoders of CRIU's image files and responses on arbitrary bytes: no crash,
// and an adjustment that changes nothing gives the input back.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "ckpt/criu/images.h"
#include "ckpt/criu/rpc.h"
#include "planted.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view content(reinterpret_cast<const char*>(data), size);
  pos::DecodeCriuTree(content).status().IgnoreError();
  const auto files = pos::DecodeCriuFiles(content);
  if (files.ok()) {
    for (const pos::CriuFile& file : *files) {
      pos::fuzz::PlantedBug(file.id > 1000 && file.size_bytes.has_value());
    }
  }
  pos::DecodeCriuResponse(content).status().IgnoreError();
  std::size_t changed = 0;
  const pos::Result<std::string> same = pos::AdjustCriuFilesContent(
      content, [](pos::CriuFile*) {}, &changed);
  if (same.ok() && (changed != 0 || *same != content)) std::abort();
  return 0;
}
