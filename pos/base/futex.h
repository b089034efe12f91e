// The futex system call on a 32-bit atomic word.
//
// `shared` = the word lies in memory that several processes map. A private
// futex is cheaper and survives a restore of the process image.
#ifndef POS_BASE_FUTEX_H_
#define POS_BASE_FUTEX_H_

#include <atomic>
#include <cstdint>

namespace pos {

enum class FutexScope { kPrivate, kShared };

// Sleeps while *word == expected, until a wake-up, a signal or the time-out
// (0: none). Returns false only for the time-out. The caller re-checks.
bool FutexWait(const std::atomic<std::uint32_t>* word, std::uint32_t expected,
               FutexScope scope, std::uint64_t timeout_ns = 0);
// Wakes up to `count` sleepers.
void FutexWake(std::atomic<std::uint32_t>* word, FutexScope scope,
               int count = 0x7fffffff);

// Tells the processor that this is a spin loop.
inline void CpuPause() { __builtin_ia32_pause(); }

}  // namespace pos

#endif  // POS_BASE_FUTEX_H_
