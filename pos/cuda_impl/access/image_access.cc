#include "pos/cuda_impl/access/image_access.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "pos/cuda_impl/access/analysis.h"
#include "pos/cuda_impl/fatbin/fatbin.h"

namespace pos::access {
namespace {

using fatbin::Entry;
using fatbin::EntryKind;

// Machine code runs on its own major version, minor not above the device's;
// what is for one architecture only, on that one.
bool Runs(const Entry& code, std::uint32_t sm) {
  if (code.kind != EntryKind::kElf || code.sm / 10 != sm / 10) return false;
  return code.arch_specific ? code.sm == sm : code.sm <= sm;
}

// The machine code that the device would run, or nullptr.
const Entry* MachineCode(std::span<const Entry> entries, std::uint32_t sm) {
  const Entry* best = nullptr;
  const auto rank = [](const Entry& entry) {
    return entry.sm * 2 + (entry.arch_specific ? 1 : 0);
  };
  for (const Entry& entry : entries) {
    if (!Runs(entry, sm)) continue;
    if (best == nullptr || rank(entry) > rank(*best)) best = &entry;
  }
  return best;
}

Result<std::vector<std::string>> Texts(std::span<const std::byte> image,
                                       const ImageChoice& choice) {
  POS_ASSIGN_OR_RETURN(const std::vector<Entry> entries,
                       fatbin::ListEntries(image));
  const Entry* const code =
      choice.runs_machine_code ? MachineCode(entries, choice.sm) : nullptr;
  std::vector<std::string> texts;
  const std::uint32_t units = entries.empty() ? 0 : entries.back().unit + 1;
  for (std::uint32_t unit = 0; unit < units; ++unit) {
    const int best =
        fatbin::BestPtx(entries, unit, code == nullptr ? choice.sm : code->sm);
    if (best < 0) continue;
    const Entry& ptx = entries[static_cast<std::size_t>(best)];
    if (code != nullptr &&
        (ptx.sm != code->sm || ptx.arch_specific != code->arch_specific)) {
      return Invalid("machine code without PTX of its architecture");
    }
    POS_ASSIGN_OR_RETURN(std::string text, fatbin::ReadCode(ptx));
    texts.push_back(std::move(text));
  }
  if (texts.empty()) return Invalid("no PTX");
  return texts;
}

}  // namespace

ImageAccess::ImageAccess(std::shared_ptr<const ptx::Module> module,
                         std::string reason)
    : module_(std::move(module)), reason_(std::move(reason)) {}

ImageAccess::~ImageAccess() = default;

std::vector<std::string> ImageAccess::Kernels() const {
  std::vector<std::string> names;
  if (module_ == nullptr) return names;
  for (const ptx::Entry& entry : module_->entries()) {
    names.push_back(entry.name);
  }
  return names;
}

const KernelAccess* ImageAccess::Find(std::string_view kernel) {
  MutexLock lock(&mu_);
  const auto found = kernels_.find(kernel);
  if (found != kernels_.end()) return &found->second;
  KernelAccess access;
  access.name = kernel;
  access.reason = module_ == nullptr ? reason_ : "not in the PTX";
  if (module_ != nullptr) {
    const auto& entries = module_->entries();
    const auto at = std::ranges::find(entries, kernel, &ptx::Entry::name);
    if (at != entries.end()) {
      if (context_ == nullptr) {
        context_ = std::make_unique<ModuleContext>(*module_);
      }
      const auto number = static_cast<std::uint32_t>(at - entries.begin());
      access = Analysis(context_.get(), number).Run();
    }
  }
  return &kernels_.emplace(std::string(kernel), std::move(access))
              .first->second;
}

std::shared_ptr<ImageAccess> AnalyzeImage(std::span<const std::byte> image,
                                          const ImageChoice& choice) {
  const auto texts = Texts(image, choice);
  if (!texts.ok()) {
    return std::make_shared<ImageAccess>(nullptr, texts.status().message());
  }
  const std::vector<std::string_view> views(texts->begin(), texts->end());
  const auto module = ptx::Module::Link(views);
  if (!module.ok()) {
    return std::make_shared<ImageAccess>(nullptr, module.status().message());
  }
  return std::make_shared<ImageAccess>(*module, "");
}

std::shared_ptr<ImageAccess> AccessCache::Get(std::span<const std::byte> image,
                                              const ImageChoice& choice) {
  const XXH128_hash_t hash = ::XXH3_128bits(image.data(), image.size());
  const Key key{hash.low64, hash.high64, image.size(),
                choice.sm * 2u + (choice.runs_machine_code ? 1u : 0u)};
  MutexLock lock(&mu_);
  if (auto known = images_[key].lock(); known != nullptr) return known;
  std::erase_if(images_,
                [](const auto& entry) { return entry.second.expired(); });
  auto made = AnalyzeImage(image, choice);
  images_[key] = made;
  return made;
}

}  // namespace pos::access
