// What backs granules. Memory without an address: pieces of an unlinked file.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "pos/base/log.h"
#include "pos/cuda_impl/device_sim/engine/memory.h"
#include "pos/device/device.h"

namespace pos::sim {
namespace {

constexpr std::uint64_t kGranule = Device::kMapGranularity;

}  // namespace

void SimMemory::SetBacking(std::uint64_t address, std::uint64_t bytes,
                           Backing backing) {
  const std::size_t first = Granule(address);
  for (std::size_t g = first; g < first + bytes / kGranule; ++g) {
    backing_[g].store(backing, std::memory_order_release);
  }
}

bool SimMemory::AllMapped(std::uint64_t address, std::uint64_t bytes) const {
  for (std::size_t g = Granule(address); g <= Granule(address + bytes - 1);
       ++g) {
    if (backing_[g] != Backing::kMapped) return false;
  }
  return true;
}

Status SimMemory::CheckMapped(std::uint64_t address,
                              std::uint64_t bytes) const {
  if (bytes == 0) return OkStatus();
  POS_RETURN_IF_ERROR(CheckRange(address, bytes));
  if (AllMapped(address, bytes)) return OkStatus();
  return Invalid("simulated device: " + std::to_string(bytes) + " bytes at " +
                 Hex(address) + " are not all mapped");
}

Status SimMemory::TakePhysical(std::uint64_t bytes, std::uint64_t* offset) {
  if (bytes == 0 || bytes % kGranule != 0) {
    return Invalid("simulated device: physical memory of " +
                   std::to_string(bytes) + " bytes, not of 2 MiB granules");
  }
  if (bytes > free_bytes_.load(std::memory_order_relaxed)) {
    return OutOfMemory("simulated device: " + std::to_string(bytes) +
                       " bytes asked for, " + std::to_string(FreeBytes()) +
                       " of " + std::to_string(capacity_) + " are free");
  }
  if (!file_.valid()) {
    file_.Reset(::memfd_create("pos-sim-physical", MFD_CLOEXEC));
    if (!file_.valid()) {
      return ErrnoStatus(errno, "simulated device: memfd_create");
    }
  }
  if (::ftruncate(file_.get(), static_cast<off_t>(file_end_ + bytes)) != 0) {
    return ErrnoStatus(errno, "simulated device: physical memory");
  }
  *offset = file_end_;
  file_end_ += bytes;
  free_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  return OkStatus();
}

void SimMemory::FreePhysical(std::uint64_t offset, std::uint64_t bytes) {
  if (::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  static_cast<off_t>(offset), static_cast<off_t>(bytes)) != 0) {
    POS_LOG(kWarning, "simulated device: physical memory is not given back",
            {{"errno", errno}});
  }
  free_bytes_.fetch_add(bytes, std::memory_order_relaxed);
}

Status SimMemory::MapPhysical(std::uint64_t address, std::uint64_t bytes,
                              std::uint64_t offset) {
  POS_RETURN_IF_ERROR(CheckUnmapped(address, bytes));
  void* got =
      ::mmap(reinterpret_cast<void*>(address), bytes, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_NORESERVE | MAP_FIXED, file_.get(),
             static_cast<off_t>(offset));
  if (got == MAP_FAILED) {  // NOLINT
    return ErrnoStatus(errno, "simulated device: mmap");
  }
  SetBacking(address, bytes, Backing::kMapped);
  pieces_[address] = bytes;
  return OkStatus();
}

}  // namespace pos::sim
