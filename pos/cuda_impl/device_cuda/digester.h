// Digests of device memory, made by the device: Device::Digest of the cuda
// device.
//
// The kernel digests blocks of 4096 bytes (digest_kernel.h) and writes 16 bytes
// for each to pinned host memory; the rest of the tree, 1/256 of the work, is
// made here while the kernel works on the next batch. So no memory of the
// device is needed, which may be full.
//
// Variables that the driver has placed are memory of their module's context,
// which kernels of another one cannot be sure to reach: they are copied to the
// host and digested there.
//
// Threads: any; calls come one after the other.
// Memory:  two batches of kBatchPieces: 8.4 MiB of pinned host memory, from the
//          first call on.
#ifndef POS_CUDA_IMPL_DEVICE_CUDA_DIGESTER_H_
#define POS_CUDA_IMPL_DEVICE_CUDA_DIGESTER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "ckpt/format/digest.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/cuda_impl/device_cuda/digest_kernel.h"
#include "pos/cuda_impl/device_cuda/driver.h"
#include "pos/cuda_impl/device_cuda/memory.h"
#include "pos/cuda_impl/device_cuda/pinned_pool.h"
#include "pos/device/device.h"

namespace pos::cuda_device {

class Digester {
 public:
  // `context`: in which kernels of POS's own run; like the others, it outlives
  // this.
  Digester(const Driver& driver, CUcontext context, std::uint64_t key,
           CudaMemory* memory, PinnedPool* pool)
      : driver_(driver),
        context_(context),
        key_(key),
        memory_(memory),
        pool_(pool) {}
  ~Digester();
  Digester(const Digester&) = delete;
  Digester& operator=(const Digester&) = delete;

  Status Digest(std::span<const MemoryRange> ranges, std::uint64_t seed,
                std::span<ckpt::Digest> digests) POS_EXCLUDES(mu_);

 private:
  static constexpr std::size_t kBatchPieces = 4096;  // 1 GiB
  // So many batches are digested while mappings stay as they are.
  static constexpr int kGroupBatches = 8;

  // What of a range a batch digests.
  struct Part {
    std::size_t range = 0;
    std::size_t first_block = 0;  // in the batch
    std::uint64_t bytes = 0;
    bool last = false;
  };
  struct Batch {
    PinnedBuffer pieces;
    PinnedBuffer digests;
    CUevent done = nullptr;
    std::vector<Part> parts;
    std::size_t piece_count = 0;
    std::size_t block_count = 0;
    bool under_way = false;
  };
  // Where a call has got to.
  struct Cursor {
    std::size_t range = 0;
    std::uint64_t offset = 0;
  };

  Status Prepare() POS_REQUIRES(mu_);
  Status UseSeed(std::uint64_t seed) POS_REQUIRES(mu_);
  Status DigestGroup(std::span<const MemoryRange> ranges, Cursor* at,
                     std::span<ckpt::Digest> digests) POS_REQUIRES(mu_);
  Status Fill(Batch* batch, std::span<const MemoryRange> ranges, Cursor* at,
              std::span<ckpt::Digest> digests)
      POS_REQUIRES(mu_, memory_->mappings_mu);
  void AddPieces(Batch* batch, const MemoryRange& range, Cursor* at)
      POS_REQUIRES(mu_);
  Status Launch(Batch* batch) POS_REQUIRES(mu_);
  Status Await(Batch* batch, std::span<ckpt::Digest> digests) POS_REQUIRES(mu_);
  Status DigestVariable(const MemoryRange& range, ckpt::Digest* digest)
      POS_REQUIRES(mu_);

  const Driver& driver_;
  const CUcontext context_;
  const std::uint64_t key_;
  CudaMemory* const memory_;
  PinnedPool* const pool_;

  Mutex mu_;
  CUmodule module_ POS_GUARDED_BY(mu_) = nullptr;
  CUfunction kernel_ POS_GUARDED_BY(mu_) = nullptr;
  CUdeviceptr keys_ POS_GUARDED_BY(mu_) = 0;
  CUstream stream_ POS_GUARDED_BY(mu_) = nullptr;
  bool ready_ POS_GUARDED_BY(mu_) = false;
  std::array<Batch, 2> batches_ POS_GUARDED_BY(mu_);
  std::optional<ckpt::DigestKey> seed_ POS_GUARDED_BY(mu_);
  std::unique_ptr<ckpt::DigestStream> tree_ POS_GUARDED_BY(mu_);
};

}  // namespace pos::cuda_device

#endif  // POS_CUDA_IMPL_DEVICE_CUDA_DIGESTER_H_
