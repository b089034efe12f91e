#ifndef REMOTING_SHIM_UNSUPPORTED_H_
#define REMOTING_SHIM_UNSUPPORTED_H_

namespace pos::shim {

// Logs once that `name` is not supported; returns CUDA_ERROR_NOT_SUPPORTED.
int RefuseFunction(const char* name);

}  // namespace pos::shim

#endif  // REMOTING_SHIM_UNSUPPORTED_H_
