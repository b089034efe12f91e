// What the worker keeps for each kind of handle: the device's objects.
//
// Threads: the worker's.
#ifndef POS_CUDA_IMPL_HANDLES_OBJECTS_H_
#define POS_CUDA_IMPL_HANDLES_OBJECTS_H_

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "pos/device/device.h"
#include "pos/device/output_fifo.h"
#include "pos/graph/handle_graph.h"
#include "pos/graph/ledger.h"

namespace pos::cuda {

class KernelAccess;  // pos/cuda_impl/worker/kernel_access.h
class ModuleCode;    // pos/cuda_impl/worker/code_access.h

struct ContextObject : HandleObject {
  int device = 0;
  std::unique_ptr<ContextSink> sink;  // before `context`, which uses it
  std::unique_ptr<DeviceContext> context;
  // Memory of device-side malloc; 0: not placed yet.
  std::uint64_t heap = 0;
  std::uint64_t heap_bytes = 0;
  // A kernel that may use it was launched: its limit is fixed from then on.
  bool heap_used = false;
  bool output_used = false;
};

struct StreamObject : HandleObject {
  DeviceContext* context = nullptr;
  DeviceStream* stream = nullptr;       // `owned`, or the default stream
  std::unique_ptr<DeviceStream> owned;  // null for the default stream
};

struct EventObject : HandleObject {
  std::unique_ptr<DeviceEvent> event;
};

struct ModuleObject : HandleObject {
  int device = 0;
  std::unique_ptr<DeviceModule> module;
  // Where its variables were placed, in the order in which the device asked.
  std::vector<std::uint64_t> placed;
  // Addresses of those that kernels may write (not __constant__), ascending.
  std::vector<std::uint64_t> writable;
  std::shared_ptr<ModuleCode> code;  // what an analysis says of its kernels
};

struct FunctionObject : HandleObject {
  DeviceFunction* function = nullptr;  // owned by the module
  // What its code says about the memory that it touches; null: nothing, and
  // launches of it are guessed at.
  std::shared_ptr<const KernelAccess> access;
};

// Device memory without an address of its own. Held by its handle and by what
// is mapped of it; at the end of the last its bytes go back to the ledger.
struct PhysicalMemory {
  PhysicalMemory(std::shared_ptr<DevicePhysical> memory_in, int device_in,
                 MemoryLedger* ledger_in)
      : memory(std::move(memory_in)), device(device_in), ledger(ledger_in) {}
  ~PhysicalMemory() {
    const std::uint64_t bytes = memory->bytes();
    memory.reset();
    ledger->GiveBack(device, bytes);
  }
  PhysicalMemory(const PhysicalMemory&) = delete;
  PhysicalMemory& operator=(const PhysicalMemory&) = delete;

  std::shared_ptr<DevicePhysical> memory;
  const int device;
  MemoryLedger* const ledger;
  // It has been mapped, so something may have been written to it.
  bool touched = false;
};

struct PhysicalObject : HandleObject {
  std::shared_ptr<PhysicalMemory> memory;
  // The client gave its handle back; the object goes with the last mapping.
  bool released = false;
};

// Bytes of a code image as the client sent them. Kept in Handle::parser_data:
// the parser fills it; from the first module made of it on it is constant.
struct Blob {
  std::vector<std::byte> bytes;
  bool sealed = false;  // parser
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_HANDLES_OBJECTS_H_
