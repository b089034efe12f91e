// A device that does nothing and completes everything at once, inside the
// submitting call: what the rest of the pipeline costs is measured with it.
//
// Memory is only counted: Map backs nothing, copies move nothing, Read yields
// zeros. Every module has every function, which takes no parameters, and no
// variables. Events are complete when recorded.
// Threads: as device.h says. Never blocks; allocates only where it creates.
#ifndef POS_DEVICE_NULL_DEVICE_H_
#define POS_DEVICE_NULL_DEVICE_H_

#include <cstdint>
#include <memory>

#include "pos/device/device.h"

namespace pos {

[[nodiscard]] std::unique_ptr<Device> NewNullDevice(std::uint64_t memory_bytes);

}  // namespace pos

#endif  // POS_DEVICE_NULL_DEVICE_H_
