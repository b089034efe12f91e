// What a code image says of itself: the names of its variables, which the
// driver's API does not list, and the parameters of its kernels, for drivers
// that do not tell.
//
// Input is not trusted. Threads: no state.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_IMAGE_SYMBOLS_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_IMAGE_SYMBOLS_H_

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pos/cuda_impl/fatbin/fatbin.h"
#include "pos/device/device.h"

namespace pos::cuda_device {

struct ImageVariable {
  std::string name;
  bool constant = false;
  bool managed = false;
};

struct ImageSymbols {
  std::vector<ImageVariable> variables;                  // by name, each once
  std::map<std::string, std::vector<ParamInfo>> params;  // of cubins
  bool uses_heap = false;  // some function may call malloc or free
  bool prints = false;     // some function may print, or assert
};

// Of all entries, for whatever architecture: a name that is not in what the
// driver chose is not found there. Entries that cannot be read are passed over.
ImageSymbols ReadSymbols(std::span<const fatbin::Entry> entries);

// Variables of a PTX text (module scope, .global and .const, defined there).
std::vector<ImageVariable> PtxVariables(std::string_view text);
// Whether the text, or the cubin's table of names, has one of the names.
bool NamesAny(std::string_view code, bool ptx,
              std::span<const std::string_view> names);
// malloc or free; vprintf or __assertfail.
bool NamesHeap(std::string_view code, bool ptx);
bool NamesOutput(std::string_view code, bool ptx);
// Variables of a cubin: objects in .nv.global*, .nv.constant3*.
std::vector<ImageVariable> CubinVariables(std::string_view elf);

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_IMAGE_SYMBOLS_H_
