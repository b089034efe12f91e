// cuLogs…: what the program asks of driver_log.h. Works before cuInit.
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "pos/base/fd.h"
#include "remoting/shim/driver.h"
#include "remoting/shim/driver_log.h"

using pos::shim::DriverLog;

CUresult CUDAAPI cuLogsRegisterCallback(CUlogsCallback callback, void* user,
                                        CUlogsCallbackHandle* out) {
  if (callback == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const std::uint64_t id = DriverLog::Get().Register(callback, user);
  if (out != nullptr) *out = reinterpret_cast<CUlogsCallbackHandle>(id);
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLogsUnregisterCallback(CUlogsCallbackHandle callback) {
  return DriverLog::Get().Unregister(reinterpret_cast<std::uint64_t>(callback))
             ? CUDA_SUCCESS
             : CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuLogsCurrent(CUlogIterator* iterator, unsigned flags) {
  if (iterator == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  *iterator = DriverLog::Get().Next();
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLogsDumpToFile(CUlogIterator* iterator, const char* path,
                                  unsigned flags) {
  if (path == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  DriverLog& log = DriverLog::Get();
  std::string text;
  CUlogIterator next = 0;
  // All that is kept, and the line about what is not, fit.
  if (!log.Text(iterator, 2 * DriverLog::kBytes, &text, &next)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const pos::UniqueFd file(
      ::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file.valid() ||
      !pos::WriteFull(file.get(), std::as_bytes(std::span(text)), path).ok()) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (iterator != nullptr) *iterator = next;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLogsDumpToMemory(CUlogIterator* iterator, char* buffer,
                                    std::size_t* size, unsigned flags) {
  if (buffer == nullptr || size == nullptr || flags != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const std::size_t room = *size;
  *size = 0;
  if (room == 0) return CUDA_ERROR_INVALID_VALUE;
  DriverLog& log = DriverLog::Get();
  std::string text;
  CUlogIterator next = 0;
  const bool fits = log.Text(iterator, room - 1, &text, &next);
  std::memcpy(buffer, text.c_str(), text.size() + 1);
  if (!fits) return CUDA_ERROR_INVALID_VALUE;
  *size = text.size();
  if (iterator != nullptr) *iterator = next;
  return CUDA_SUCCESS;
}
