// What one kernel does to device memory, and what a launch of it does.
//
// A kernel is *proven* when every access to global memory traces to words of
// its parameters or to variables of its module. What that rests on is what the
// language says: an address that is computed from a pointer by adding integers
// stays in the pointer's allocation, one past its end at most, or is not used.
// Which words are pointers is found out at the launch: those that point into
// an allocation. A sum with two of them, or with one that is subtracted, is no
// proof; neither is a pointer loaded from memory or put together from parts.
//
// Launches of a kernel that is not proven are guessed at: every word of the
// parameters that points into an allocation counts as written.
//
// Threads: immutable; any.
// Ownership: owns what it names.
#ifndef POS_CUDA_IMPL_ACCESS_KERNEL_ACCESS_H_
#define POS_CUDA_IMPL_ACCESS_KERNEL_ACCESS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pos/cuda_impl/access/expression.h"
#include "pos/cuda_impl/access/value.h"
#include "pos/worker/memory_watch.h"

namespace pos::access {

// Where memory is, for one session.
class MemoryMap {
 public:
  enum class Found : std::uint8_t {
    kNothing,
    kDevice,  // `*range` is the whole allocation
    kHost,    // memory that is no device's
  };
  virtual ~MemoryMap() = default;
  virtual Found Find(DeviceAddress address, MemoryRange* range) const = 0;
};

// Accesses that have one address in common but for the thread.
struct KernelTouch {
  static constexpr std::uint32_t kNoVariable = 0xffffffff;
  bool reads = false;
  bool writes = false;
  bool atomic = false;                   // reads and writes
  std::uint32_t variable = kNoVariable;  // of KernelAccess::variables
  // Of KernelAccess::words; what they mean: value.h.
  SmallSet<3> added;
  SmallSet<3> subtracted;
  SmallSet<8> involved;
  std::uint32_t expr = 0;  // of KernelAccess::exprs; 0: anywhere in it
  std::uint32_t bytes = 0;
};

struct KernelAccess {
  // More would take too long at a launch; places become "anywhere" then.
  static constexpr std::size_t kMaxExprs = 64;
  static constexpr std::size_t kMaxWords = 64;
  static constexpr std::size_t kMaxTouches = 64;

  std::string name;
  AccessBasis basis = AccessBasis::kGuessed;
  std::string reason;  // why not proven: instruction, line
  std::vector<KernelTouch> touches;
  std::vector<std::uint32_t> words;    // byte offsets in the parameters
  std::vector<std::string> variables;  // of the module, by name
  std::vector<Expr> exprs;             // [0]: nothing is known
};

// What a launch touches. `variables` says where those of `kernel.variables` lie
// (bytes 0: not known, which is no proof). Adds to `*out`, which is cleared,
// and sets its basis. No allocation once `*out` has room.
void EvaluateLaunch(const KernelAccess& kernel, const LaunchConfig& launch,
                    std::span<const std::byte> params, const MemoryMap& memory,
                    std::span<const MemoryRange> variables, AccessSet* out);

// The same without any knowledge of the kernel.
void GuessLaunch(std::span<const std::byte> params, const MemoryMap& memory,
                 AccessSet* out);

}  // namespace pos::access

#endif  // POS_CUDA_IMPL_ACCESS_KERNEL_ACCESS_H_
