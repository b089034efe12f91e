// Reads the code images that CUDA programs hand to the driver: fat binaries,
// cubins and PTX text.
//
// Input is not trusted: every offset and length is checked against the bytes
// that are there, and nothing is allocated on the word of a header beyond
// kMaxCodeBytes. Results point into the input, which the caller keeps alive.
// Threads: free functions without state.
//
// Entry header (64 bytes and more; the length is in it):
//   0 u16 kind      2 u16 0x101      4 u32 header bytes
//   8 u32 payload bytes, padded to 8; the next entry follows it
//  16 u32 compressed bytes (0: stored plain)   28 u32 SM version
//  40 u64 flags     56 u64 bytes when decompressed
//
// Verified on nvcc 13.0.88 output, samples in tests/pos/cuda_impl/fatbin/data:
// these fields for PTX, ELF and LTO-IR entries of sm_75 to sm_120; flag 0x8000
// zstd and 0x2000 LZ4 block for every -compress-mode; flag 0x100000 on entries
// of sm_90a; 0x2 with -G; kind 8 with -dlto (its payload is not zstd though
// flagged so, and is not read here); a compressed PTX entry's size counts one
// trailing NUL and a plain one's padding is NULs.
#ifndef POS_CUDA_IMPL_FATBIN_FATBIN_H_
#define POS_CUDA_IMPL_FATBIN_FATBIN_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pos/base/status.h"

namespace pos::fatbin {

// No single PTX text or cubin of NVIDIA's own libraries comes near this (the
// largest seen is 14 MB); it bounds what a forged header can make us allocate.
inline constexpr std::uint64_t kMaxCodeBytes = 512u << 20;

enum class EntryKind : std::uint16_t { kPtx = 1, kElf = 2, kLtoIr = 8 };

enum class Compression { kNone, kZstd, kLz4, kUnknown };

struct Entry {
  EntryKind kind = EntryKind::kPtx;  // other values of the file are kept
  std::uint32_t sm = 0;              // 90 for sm_90
  bool arch_specific = false;        // sm_90a: runs on 9.0 alone
  Compression compression = Compression::kNone;
  std::span<const std::byte> payload;  // as stored
  std::uint64_t code_bytes = 0;        // decompressed; upper bound for text
  // Which of several concatenated fat binaries it came from (-rdc=true).
  std::uint32_t unit = 0;
};

// What is in `image`: one or more fat binaries back to back (zero padding
// between them is skipped), or a single cubin or PTX text as one entry.
Result<std::vector<Entry>> ListEntries(std::span<const std::byte> image);

// The entry's code, decompressed. PTX comes without its trailing NUL.
Result<std::string> ReadCode(const Entry& entry);

// Index of the PTX of unit `unit` that runs best on a device of compute
// capability `sm` (90 for 9.0): the highest version not above it;
// arch-specific PTX only where the version is equal, and then first. -1 when
// there is none.
[[nodiscard]] int BestPtx(std::span<const Entry> entries, std::uint32_t unit,
                          std::uint32_t sm);

// The PTX texts to run `image` on `sm`: one per unit that has any. Empty when
// the image holds no PTX for it (a cubin, or PTX for newer devices only).
Result<std::vector<std::string>> SelectPtx(std::span<const std::byte> image,
                                           std::uint32_t sm);

// The SM version that a PTX text names in its .target directive; 0 when there
// is none. `*arch_specific` tells a trailing "a".
[[nodiscard]] std::uint32_t PtxTarget(std::string_view text,
                                      bool* arch_specific);

}  // namespace pos::fatbin

#endif  // POS_CUDA_IMPL_FATBIN_FATBIN_H_
