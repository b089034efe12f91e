// Contexts, streams and events of the simulated device: thin handles over the
// engine's records.
#ifndef POS_CUDA_IMPL_DEVICE_SIM_CONTEXT_H_
#define POS_CUDA_IMPL_DEVICE_SIM_CONTEXT_H_

#include <cstdint>
#include <memory>

#include "pos/cuda_impl/device_sim/code_image.h"
#include "pos/cuda_impl/device_sim/engine/engine.h"
#include "pos/device/device.h"

namespace pos::sim {

// All outlive the context.
struct ContextParts {
  Engine* engine;
  SimMemory* memory;
  CodeImageCache* images;
  std::uint32_t compute_capability;
};

[[nodiscard]] std::unique_ptr<DeviceContext> NewSimContext(
    const ContextParts& parts, CompletionSink* sink);

}  // namespace pos::sim

#endif  // POS_CUDA_IMPL_DEVICE_SIM_CONTEXT_H_
