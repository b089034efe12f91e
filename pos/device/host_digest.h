// Digests of memory of this process, on several processors.
//
// Threads: any; starts threads of its own for the time of a call. They and the
//   caller read the memory, each range by one of them.
// Speed:   that of memory, from a few cores on (eval/ckpt/digest_bench.cc).
#ifndef POS_DEVICE_HOST_DIGEST_H_
#define POS_DEVICE_HOST_DIGEST_H_

#include <cstdint>
#include <span>

#include "ckpt/format/digest.h"
#include "pos/device/device.h"

namespace pos {

// `threads` 0: as many as there are processors, eight at most, and no more than
// the work is worth. Ranges are addresses of this process that can be read.
void DigestHost(std::span<const MemoryRange> ranges, std::uint64_t seed,
                std::span<ckpt::Digest> digests, int threads = 0);

// As if all of it were zeros; nothing is read.
void DigestZeros(std::span<const MemoryRange> ranges, std::uint64_t seed,
                 std::span<ckpt::Digest> digests);

}  // namespace pos

#endif  // POS_DEVICE_HOST_DIGEST_H_
