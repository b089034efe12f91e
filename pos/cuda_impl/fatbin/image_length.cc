#include "pos/cuda_impl/fatbin/image_length.h"

#include <cstring>

namespace pos::fatbin {
namespace {

template <typename T>
T Load(const void* base, std::size_t offset) {
  T value;
  std::memcpy(&value, static_cast<const char*>(base) + offset, sizeof(T));
  return value;
}

std::size_t FatbinBytes(const void* image) {
  if (Load<std::uint16_t>(image, 4) != 1) return 0;
  const auto header = Load<std::uint16_t>(image, 6);
  const auto rest = Load<std::uint64_t>(image, 8);
  std::size_t total = 0;
  if (header < kFatbinHeaderBytes) return 0;
  if (__builtin_add_overflow(rest, header, &total)) return 0;
  return total;
}

// e_phoff @32, e_shoff @40, e_phentsize @54, e_phnum @56, e_shentsize @58,
// e_shnum @60 (ELF-64).
std::size_t ElfBytes(const void* image) {
  std::size_t programs_end = 0;
  std::size_t sections_end = 0;
  const std::size_t programs = std::size_t{Load<std::uint16_t>(image, 54)} *
                               Load<std::uint16_t>(image, 56);
  const std::size_t sections = std::size_t{Load<std::uint16_t>(image, 58)} *
                               Load<std::uint16_t>(image, 60);
  if (__builtin_add_overflow(Load<std::uint64_t>(image, 32), programs,
                             &programs_end) ||
      __builtin_add_overflow(Load<std::uint64_t>(image, 40), sections,
                             &sections_end)) {
    return 0;
  }
  return programs_end > sections_end ? programs_end : sections_end;
}

}  // namespace

ImageKind KindOf(const void* image) {
  // A text may be shorter than four bytes, so stop at its NUL. No magic has a
  // zero byte.
  std::uint32_t magic = 0;
  const auto* bytes = static_cast<const unsigned char*>(image);
  for (unsigned i = 0; i < 4 && bytes[i] != 0; ++i) {
    magic |= std::uint32_t{bytes[i]} << (8 * i);
  }
  switch (magic) {
    case kWrapperMagic:
      return ImageKind::kWrapper;
    case kFatbinMagic:
      return ImageKind::kFatbin;
    case kElfMagic:
      return ImageKind::kElf;
    default:
      return ImageKind::kPtx;
  }
}

std::size_t ImageBytes(const void* image) {
  switch (KindOf(image)) {
    case ImageKind::kFatbin:
      return FatbinBytes(image);
    case ImageKind::kElf:
      return ElfBytes(image);
    case ImageKind::kPtx:
      return std::strlen(static_cast<const char*>(image)) + 1;
    case ImageKind::kWrapper:
      break;
  }
  return 0;
}

std::size_t Unwrap(const void* image, std::span<ImageSpan> out) {
  std::size_t count = 0;
  const auto add = [&](const void* one) {
    if (count < out.size()) out[count] = {one, ImageBytes(one)};
    ++count;
  };
  if (KindOf(image) != ImageKind::kWrapper) {
    add(image);
    return count;
  }
  const auto version = Load<std::uint32_t>(image, 4);
  if (version != 1 && version != 2) return 0;
  const auto* data = Load<const void*>(image, 8);
  if (data == nullptr) return 0;
  add(data);
  const auto* before_link = Load<const void*>(image, 16);
  if (version == 1 || before_link == nullptr) return count;
  for (std::size_t i = 0;; ++i) {
    const auto* one = Load<const void*>(before_link, i * sizeof(void*));
    if (one == nullptr) return count;
    add(one);
  }
}

}  // namespace pos::fatbin
