// Code images as a hostile client may send them: listed, unpacked, read.
// Seeds: tests/pos/cuda_impl/fatbin/data.
#include <cstddef>
#include <cstdint>
#include <span>

#include "planted.h"
#include "pos/cuda_impl/fatbin/cubin.h"
#include "pos/cuda_impl/fatbin/fatbin.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const auto image = std::as_bytes(std::span(data, size));
  pos::fatbin::ReadCubin(image).status().IgnoreError();
  const auto entries = pos::fatbin::ListEntries(image);
  if (!entries.ok()) return 0;
  for (const pos::fatbin::Entry& entry : *entries) {
    pos::fuzz::PlantedBug(entry.sm > 200 &&
                          entry.compression ==
                              pos::fatbin::Compression::kUnknown);
    // Large sizes are covered by tests; here they would only be slow.
    if (entry.code_bytes > (1u << 20)) continue;
    const auto code = pos::fatbin::ReadCode(entry);
    if (!code.ok()) continue;
    bool specific = false;
    if (entry.kind == pos::fatbin::EntryKind::kPtx) {
      static_cast<void>(pos::fatbin::PtxTarget(*code, &specific));
    } else {
      pos::fatbin::ReadCubin(std::as_bytes(std::span(*code)))
          .status()
          .IgnoreError();
    }
  }
  return 0;
}
