// One device under test, as the conformance suite needs it. Each device brings
// an implementation of NewHarness and links the suite against it.
#ifndef POS_TESTS_CONFORMANCE_DEVICE_HARNESS_H_
#define POS_TESTS_CONFORMANCE_DEVICE_HARNESS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "pos/device/device.h"

namespace pos::conformance {

// What the API of the device calls its errors.
struct ErrorNumbers {
  DeviceError invalid_value = 1;
  DeviceError out_of_resources = 701;
  DeviceError invalid_image = 200;
  DeviceError no_binary = 209;
  DeviceError invalid_ptx = 218;
  DeviceError illegal_address = 700;
};

class Harness {
 public:
  virtual ~Harness() = default;
  virtual Device* device() = 0;
  // Free addresses for device memory, in multiples of the map granularity; the
  // same ones are never given twice.
  virtual DeviceAddress ReserveAddresses(std::uint64_t bytes) = 0;
  // Host memory that MapHost takes, zero, at least page-aligned; freed with the
  // harness.
  virtual void* HostMemory(std::size_t bytes) = 0;
  // More device memory than this cannot be mapped.
  virtual std::uint64_t memory_bytes() = 0;
  // Whether a stray pointer of 4 bytes after an allocation's 512-byte rounding
  // is found; a GPU looks at its pages only.
  virtual bool exact_bounds() = 0;
  [[nodiscard]] virtual ErrorNumbers errors() const { return {}; }
};

std::unique_ptr<Harness> NewHarness();

}  // namespace pos::conformance

#endif  // POS_TESTS_CONFORMANCE_DEVICE_HARNESS_H_
