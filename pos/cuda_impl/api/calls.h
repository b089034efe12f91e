// Structures, ids and names of the calls in calls.def, and the table that the
// core's stages work from.
#ifndef POS_CUDA_IMPL_API_CALLS_H_
#define POS_CUDA_IMPL_API_CALLS_H_

#include <cstdint>
#include <type_traits>

#include "pos/call/call_info.h"
#include "remoting/wire/ring_layout.h"

namespace pos::cuda {

#define F(type, name) type name{};
#define ARGS(...) __VA_ARGS__
#define OUT(...) __VA_ARGS__

enum class Op : std::uint16_t {
#define POS_CALL(id, name, reply, payload, args, out) k##name = (id),
#include "pos/cuda_impl/api/calls.def"
#undef POS_CALL
};

#define POS_CALL(id, name, reply, payload, args, out)       \
  struct name##Args {                                       \
    static constexpr Op kOp = Op::k##name;                  \
    args                                                    \
  };                                                        \
  struct name##Out {                                        \
    out                                                     \
  };                                                        \
  static_assert(std::is_trivially_copyable_v<name##Args> && \
                std::is_trivially_copyable_v<name##Out> &&  \
                sizeof(name##Out) <= ::pos::wire::kSlotDataBytes);
#include "pos/cuda_impl/api/calls.def"
#undef POS_CALL
#undef F
#undef ARGS
#undef OUT

// Bytes that a structure takes on the wire: none for an empty one.
template <typename T>
inline constexpr std::uint32_t kWireBytes =
    std::is_empty_v<T> ? 0 : static_cast<std::uint32_t>(sizeof(T));

// One row per wire id; ids that are no call have no name.
[[nodiscard]] CallTable Calls();

// One parameter of a kernel as ModuleFunction's bulk output lists them, first
// `param_count` of these, then `attribute_count` FunctionAttribute.
struct FunctionParam {
  std::uint32_t offset;
  std::uint32_t bytes;
};
struct FunctionAttribute {
  std::int32_t attribute;  // CUfunction_attribute, or one of those below
  std::int32_t value;
};
// Not CUDA's: 1 when the kernel may print (or call assert).
inline constexpr std::int32_t kAttributePrints = 0x10001;

// Bits of LaunchArgs.cooperative. With kLaunchExtended the parameters are
// followed by a LaunchExtension.
inline constexpr std::uint32_t kLaunchCooperative = 1;
inline constexpr std::uint32_t kLaunchExtended = 2;
struct LaunchExtension {
  std::uint32_t cluster[3];      // 0: as the kernel says
  std::uint32_t cluster_policy;  // CUclusterSchedulingPolicy
  std::int32_t priority;
  std::uint32_t flags;
};
inline constexpr std::uint32_t kLaunchHasPriority = 1;
inline constexpr std::uint32_t kLaunchProgrammatic = 2;

// DeviceTable's bulk output: `count` of these, each followed by
// `attribute_count` DeviceAttribute.
struct DeviceRecord {
  char name[256];
  std::uint8_t uuid[16];
  std::uint64_t memory_bytes;
  std::uint64_t attribute_count;
};
struct DeviceAttribute {
  std::int32_t attribute;  // CUdevice_attribute
  std::int32_t value;
};

// DeviceOutput's bulk output: these, each followed by `bytes` of text.
struct OutputPiece {
  std::uint32_t kind;
  std::uint32_t bytes;
};
inline constexpr std::uint32_t kStandardOutput = 1;
inline constexpr std::uint32_t kStandardError = 2;

// Kinds of handles, the top byte of an id.
enum HandleKinds : std::uint8_t {
  kContextHandle = 1,
  kStreamHandle = 2,
  kEventHandle = 3,
  kBlobHandle = 4,
  kModuleHandle = 5,
  kFunctionHandle = 6,
  kPhysicalHandle = 12,
  // Client library only.
  kLibraryHandle = 32,
  kKernelHandle = 33,
  kMemPoolHandle = 34,
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_API_CALLS_H_
