// What the worker keeps for each kind of handle: the device's objects.
//
// Threads: the worker's.
#ifndef POS_CUDA_IMPL_HANDLES_OBJECTS_H_
#define POS_CUDA_IMPL_HANDLES_OBJECTS_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "pos/device/device.h"
#include "pos/device/output_fifo.h"
#include "pos/graph/handle_graph.h"

namespace pos::cuda {

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
};

struct FunctionObject : HandleObject {
  DeviceFunction* function = nullptr;  // owned by the module
};

// Bytes of a code image as the client sent them. Kept in Handle::parser_data:
// the parser fills it; from the first module made of it on it is constant.
struct Blob {
  std::vector<std::byte> bytes;
  bool sealed = false;  // parser
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_HANDLES_OBJECTS_H_
