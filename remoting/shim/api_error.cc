// Names and descriptions of results. The names are those of the enumeration in
// cuda.h; a test compares the table with the header.
#include <array>
#include <cstddef>

#include "remoting/shim/driver.h"

namespace pos::shim {
namespace {

struct Row {
  CUresult code;
  const char* name;
  const char* text;
};

#define R(code, text) \
  Row { code, #code, text }
constexpr std::array kRows = {
#include "remoting/shim/errors.def"
};
#undef R

const Row* Find(CUresult code) {
  for (const Row& row : kRows) {
    if (row.code == code) return &row;
  }
  return nullptr;
}

}  // namespace
}  // namespace pos::shim

CUresult CUDAAPI cuGetErrorName(CUresult error, const char** name) {
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const pos::shim::Row* const row = pos::shim::Find(error);
  *name = row == nullptr ? nullptr : row->name;
  return row == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult CUDAAPI cuGetErrorString(CUresult error, const char** text) {
  if (text == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const pos::shim::Row* const row = pos::shim::Find(error);
  *text = row == nullptr ? nullptr : row->text;
  return row == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
