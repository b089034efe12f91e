#include "pos/cuda_impl/device_sim/code_image.h"

#include <cuda.h>
#include <xxhash.h>

#include <algorithm>
#include <string>

#include "pos/cuda_impl/fatbin/fatbin.h"

namespace pos::sim {
namespace {

// Machine code runs on its own architecture: same major version, minor not
// above the device's; arch-specific code likewise.
bool CubinFits(std::uint32_t cubin_sm, std::uint32_t device_sm) {
  return cubin_sm / 10 == device_sm / 10 && cubin_sm <= device_sm;
}

// nvcc declares what it calls: ".extern .func (...) malloc".
bool DeclaresMalloc(const std::string& text) {
  for (std::size_t at = text.find(".extern .func"); at != std::string::npos;
       at = text.find(".extern .func", at + 1)) {
    const std::size_t end = std::min(text.find(';', at), text.size());
    const std::size_t name = text.find("malloc", at);
    if (name < end && (text[name - 1] == ' ' || text[name - 1] == '\t')) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::shared_ptr<ptx::LoadedModule> CodeImage::Load(
    std::size_t unit, const std::vector<std::uint64_t>& addresses) const {
  for (const Loaded& loaded : loaded_) {
    if (loaded.unit == unit && loaded.addresses == addresses) {
      return loaded.module;
    }
  }
  if (loaded_.size() >= std::max(kKeptLoads, units.size())) {
    loaded_.erase(loaded_.begin());
  }
  loaded_.push_back(
      {unit, addresses,
       std::make_shared<ptx::LoadedModule>(units[unit], addresses)});
  return loaded_.back().module;
}

Result<std::shared_ptr<const CodeImage>> CodeImageCache::Get(
    std::span<const std::byte> image, DeviceError* error) {
  const XXH128_hash_t hash = ::XXH3_128bits(image.data(), image.size());
  const Key key{hash.low64, hash.high64, image.size()};
  const auto found =
      std::find_if(kept_.begin(), kept_.end(),
                   [&key](const Kept& kept) { return kept.key == key; });
  if (found != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, found);
    return kept_.front().image;
  }
  POS_ASSIGN_OR_RETURN(std::shared_ptr<const CodeImage> parsed,
                       Parse(image, error));
  kept_.push_front({key, parsed});
  if (kept_.size() > kKept) kept_.pop_back();
  return parsed;
}

Result<std::shared_ptr<const CodeImage>> CodeImageCache::Parse(
    std::span<const std::byte> image, DeviceError* error) const {
  auto result = std::make_shared<CodeImage>();
  *error = CUDA_ERROR_INVALID_IMAGE;
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> texts,
                       fatbin::SelectPtx(image, sm_));
  if (!texts.empty()) {
    *error = CUDA_ERROR_INVALID_PTX;
    const std::vector<std::string_view> views(texts.begin(), texts.end());
    POS_ASSIGN_OR_RETURN(std::shared_ptr<const ptx::Module> unit,
                         ptx::Module::Link(views));
    result->units.push_back(std::move(unit));
    result->uses_heap =
        std::any_of(texts.begin(), texts.end(), &DeclaresMalloc);
    *error = 0;
    return std::shared_ptr<const CodeImage>(std::move(result));
  }
  *error = CUDA_ERROR_INVALID_IMAGE;
  POS_ASSIGN_OR_RETURN(const std::vector<fatbin::Entry> entries,
                       fatbin::ListEntries(image));
  bool fits = entries.empty();
  for (const fatbin::Entry& entry : entries) {
    if (entry.kind != fatbin::EntryKind::kElf) continue;
    POS_ASSIGN_OR_RETURN(const std::string code, fatbin::ReadCode(entry));
    POS_ASSIGN_OR_RETURN(const fatbin::Cubin cubin,
                         fatbin::ReadCubin(std::as_bytes(std::span(code))));
    if (!CubinFits(cubin.sm, sm_)) continue;
    fits = true;
    result->cubin_kernels = cubin.kernels;
  }
  if (!fits) {
    *error = CUDA_ERROR_NO_BINARY_FOR_GPU;
    return Incompatible("the code image holds nothing for compute capability " +
                        std::to_string(sm_ / 10) + "." +
                        std::to_string(sm_ % 10));
  }
  *error = 0;
  return std::shared_ptr<const CodeImage>(std::move(result));
}

}  // namespace pos::sim
