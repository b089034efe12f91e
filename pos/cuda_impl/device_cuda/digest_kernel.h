// The kernel that digests blocks of 4096 bytes, as PTX text: level 0 of the
// digest that ckpt/FORMAT.md specifies.
//
// Source of the algorithm: the specification of XXH3 in its 128-bit variant for
//   inputs of more than 240 bytes (xxHash, doc/xxhash_spec.md), for the length
//   4096 and a secret of 192 bytes.
// Work: four threads a block, each with two of the eight lanes of 64 bits, so
//   that no lane has to ask another one; 64 blocks a block of threads. Blocks
//   that are whole and lie at a multiple of 16 are read 16 bytes at a time;
//   others word by word, or byte by byte at their edges: nothing outside is
//   read.
//
// Threads: any.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_DIGEST_KERNEL_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_DIGEST_KERNEL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace pos::cuda_device {

// What one block of threads digests: `bytes` at `source`, up to kBlocks blocks,
// the last one filled up with zeros. 16 bytes for each go to `digests`, a
// multiple of 16.
struct DigestPiece {
  static constexpr std::uint64_t kBlocks = 64;
  std::uint64_t source = 0;
  std::uint64_t digests = 0;
  std::uint64_t bytes = 0;
};
inline constexpr unsigned kDigestThreads = 4 * DigestPiece::kBlocks;

inline constexpr char kDigestKernel[] = "pos_digest";  // (DigestPiece*)
inline constexpr char kDigestKeys[] = "pos_digest_keys";

// What the variable kDigestKeys holds for a secret of XXH3: the secret, the
// parts of it that are read at odd places, the lanes at the start.
using DigestKeys = std::array<std::uint64_t, 56>;
DigestKeys MakeDigestKeys(std::span<const std::byte, 192> secret);

// One module with the kernel; runs on every device that has 64-bit addresses
// and shuffles by mask (compute capability 7.0).
std::string DigestModule();

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_DIGEST_KERNEL_H_
