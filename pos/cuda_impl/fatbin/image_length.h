// How many bytes of code image lie behind a pointer that a CUDA program hands
// to cuModuleLoadData, cuLibraryLoadData and their kin, none of which takes a
// length.
//
// No dependency but the C++ headers: the client library uses it on its own
// process's memory. That memory is the caller's, so it is read as the driver
// would read it: a pointer to something else faults here as it would there.
//
// Sources: the layouts were read off nvcc 13.0.88 output (-arch sm_75 to
// sm_120, -Xfatbin -compress-all, -compress-mode, -rdc=true, -dlto); the tests
// hold samples of each.
#ifndef POS_CUDA_IMPL_FATBIN_IMAGE_LENGTH_H_
#define POS_CUDA_IMPL_FATBIN_IMAGE_LENGTH_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace pos::fatbin {

inline constexpr std::uint32_t kWrapperMagic = 0x466243b1;
inline constexpr std::uint32_t kFatbinMagic = 0xba55ed50;
inline constexpr std::uint32_t kElfMagic = 0x464c457f;
inline constexpr std::size_t kFatbinHeaderBytes = 16;

enum class ImageKind {
  kWrapper,  // the 24-byte record of section .nvFatBinSegment
  kFatbin,   // 16-byte header and entries
  kElf,      // a cubin
  kPtx,      // anything else: NUL-terminated text
};

// By the first four bytes (fewer, when a NUL comes earlier).
[[nodiscard]] ImageKind KindOf(const void* image);

// Bytes to send for an image that is not a wrapper: a fatbin's header plus the
// size it names, the end of an ELF file's later header table, or strlen + 1.
// 0 for a wrapper, for an unknown fatbin version and when the sum overflows.
//
// An ELF file ends where its tables end: ptxas puts the program headers last,
// and for its output the result is the file's size exactly.
[[nodiscard]] std::size_t ImageBytes(const void* image);

struct ImageSpan {
  const void* data = nullptr;
  std::size_t bytes = 0;
};

// The images behind `image`, in order: itself when it is not a wrapper; for a
// wrapper of version 1 its fatbin; for version 2 (-rdc=true) the device-linked
// fatbin (no PTX in it) and then each fatbin from before linking (the PTX is
// there). Fills `out` as far as it reaches and returns how many there are, 0
// for a wrapper of another version. Concatenated in this order they are an
// image that ListEntries (fatbin.h) reads.
[[nodiscard]] std::size_t Unwrap(const void* image, std::span<ImageSpan> out);

}  // namespace pos::fatbin

#endif  // POS_CUDA_IMPL_FATBIN_IMAGE_LENGTH_H_
