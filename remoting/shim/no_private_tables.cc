// Stands in for private_tables.cc where that is left out of the build.
#include "remoting/shim/driver.h"

CUresult CUDAAPI cuGetExportTable(const void** table, const CUuuid*) {
  if (table != nullptr) *table = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}
