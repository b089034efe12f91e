// Every function of the driver that has no implementation: says so once, by
// name, and returns CUDA_ERROR_NOT_SUPPORTED. Generated from the table; cuda.h
// is not included here, so that one shape fits all signatures (arguments are
// the caller's to clean up).
#include "remoting/shim/unsupported.h"

#define POS_REFUSE_kServed(symbol)
#define POS_REFUSE_kRefused(symbol)                               \
  extern "C" __attribute__((visibility("default"))) int symbol(); \
  extern "C" int symbol() { return pos::shim::RefuseFunction(#symbol); }
#define POS_CU_SYMBOL(symbol, name, version, variant, status) \
  POS_REFUSE_##status(symbol)
#include "pos/cuda_impl/api/symbols.def"
