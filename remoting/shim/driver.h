// cuda.h as the implementer of the driver sees it: every version of every
// function declared, exported, none renamed by macros.
#ifndef REMOTING_SHIM_DRIVER_H_
#define REMOTING_SHIM_DRIVER_H_

#define __CUDA_API_VERSION_INTERNAL
#pragma GCC visibility push(default)
#include <cuda.h>
#include <cudaProfiler.h>
#pragma GCC visibility pop

#endif  // REMOTING_SHIM_DRIVER_H_
