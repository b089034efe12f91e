// Versioned look-up of the driver's functions.
//
// A program built against CUDA x.y asks for the ABI of that version: it gets
// the newest symbol whose version is not above what it asked for, never a later
// one. Where it asks for the per-thread-default-stream variant and there is
// one, it gets that.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "remoting/shim/driver.h"

namespace pos::shim {
namespace {

// No driver has a function of this name: whoever looks it up and finds it knows
// that this is POS's library, not a driver.
constexpr std::string_view kMarker = "cuPosClientLibrary";

enum Variant { kLegacy, kPerThread };

struct Row {
  std::string_view name;
  int version;
  Variant variant;
  void* function;
};

// A function's address as data: what cuGetProcAddress hands out.
template <typename F>
void* AddressOf(F* function) {
  return reinterpret_cast<void*>(function);
}

const auto& Table() {
  static const auto& table = *new auto([] {
    std::vector<Row> rows = {
#define POS_CU_SYMBOL(symbol, name, version, variant, status) \
  Row{#name, version, variant, AddressOf(&::symbol)},
#include "pos/cuda_impl/api/symbols.def"
#undef POS_CU_SYMBOL
    };
    std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
      return a.name != b.name ? a.name < b.name : a.version < b.version;
    });
    return rows;
  }());
  return table;
}

void* Find(std::string_view name, int version, Variant variant,
           bool* name_known) {
  const auto& table = Table();
  auto it = std::lower_bound(table.begin(), table.end(), name,
                             [](const Row& row, std::string_view wanted) {
                               return row.name < wanted;
                             });
  void* found = nullptr;
  for (; it != table.end() && it->name == name; ++it) {
    if (it->variant != variant) continue;
    *name_known = true;
    if (it->version <= version) found = it->function;
  }
  return found;
}

CUresult Look(const char* name, void** function, int version, cuuint64_t flags,
              CUdriverProcAddressQueryResult* status) {
  if (name == nullptr || function == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (std::string_view(name) == kMarker) {
    *function = AddressOf(&cuGetProcAddress_v2);
    if (status != nullptr) *status = CU_GET_PROC_ADDRESS_SUCCESS;
    return CUDA_SUCCESS;
  }
  *function = nullptr;
  bool known = false;
  if ((flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0) {
    *function = Find(name, version, kPerThread, &known);
  }
  if (*function == nullptr) *function = Find(name, version, kLegacy, &known);
  if (status != nullptr) {
    *status = *function != nullptr ? CU_GET_PROC_ADDRESS_SUCCESS
              : known              ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                                   : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  }
  return *function != nullptr ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

}  // namespace
}  // namespace pos::shim

CUresult CUDAAPI cuGetProcAddress_v2(const char* name, void** function,
                                     int version, cuuint64_t flags,
                                     CUdriverProcAddressQueryResult* status) {
  return pos::shim::Look(name, function, version, flags, status);
}

CUresult CUDAAPI cuGetProcAddress(const char* name, void** function,
                                  int version, cuuint64_t flags) {
  return pos::shim::Look(name, function, version, flags, nullptr);
}
