// Maps of the memory that client and runner share.
#ifndef REMOTING_TRANSPORT_SHM_MAPPING_H_
#define REMOTING_TRANSPORT_SHM_MAPPING_H_

#include <cstddef>
#include <cstdint>

#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos {

// A memfd of `bytes`, sealed against shrinking, growing and further seals.
Result<UniqueFd> CreateSealedMemory(const char* name, std::uint64_t bytes);

// One mapping, shared, read and write; not inherited by a forked child.
class SharedMapping {
 public:
  SharedMapping() = default;
  SharedMapping(SharedMapping&& other) noexcept;
  SharedMapping& operator=(SharedMapping&& other) noexcept;
  SharedMapping(const SharedMapping&) = delete;
  SharedMapping& operator=(const SharedMapping&) = delete;
  ~SharedMapping() { Unmap(); }

  // Maps the first `bytes` of `fd`; then, when `mirror_bytes` is not 0, the
  // last `mirror_bytes` of them once more right behind, so that a frame that
  // runs past the end of the ring is contiguous. Page-aligned sizes.
  static Result<SharedMapping> Map(int fd, std::uint64_t bytes,
                                   std::uint64_t mirror_bytes);
  void Unmap();

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::uint64_t bytes_ = 0;   // without the mirror
  std::uint64_t mapped_ = 0;  // with it
};

}  // namespace pos

#endif  // REMOTING_TRANSPORT_SHM_MAPPING_H_
