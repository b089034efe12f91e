#include "pos/cuda_impl/fatbin/fatbin.h"

#include <lz4.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "pos/cuda_impl/fatbin/image_length.h"

namespace pos::fatbin {
namespace {

constexpr std::size_t kEntryHeaderBytes = 64;
constexpr std::uint64_t kFlagZstd = 0x8000;
constexpr std::uint64_t kFlagLz4 = 0x2000;
constexpr std::uint64_t kFlagArchSpecific = 0x100000;

template <typename T>
T Load(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

std::string Numbers(std::uint64_t want, std::uint64_t have) {
  return "need " + std::to_string(want) + " bytes, " + std::to_string(have) +
         " are there";
}

Compression CompressionOf(std::uint64_t flags, std::uint32_t packed_bytes) {
  if (packed_bytes == 0) return Compression::kNone;
  if ((flags & kFlagZstd) != 0) return Compression::kZstd;
  if ((flags & kFlagLz4) != 0) return Compression::kLz4;
  return Compression::kUnknown;
}

// Reads the entry at the head of `rest` and cuts it off.
Status TakeEntry(std::span<const std::byte>* rest, std::uint32_t unit,
                 std::vector<Entry>* out) {
  if (rest->size() < kEntryHeaderBytes) {
    return Invalid("fat binary entry header: " +
                   Numbers(kEntryHeaderBytes, rest->size()));
  }
  const auto header = Load<std::uint32_t>(*rest, 4);
  const auto padded = Load<std::uint32_t>(*rest, 8);
  const auto packed = Load<std::uint32_t>(*rest, 16);
  const auto flags = Load<std::uint64_t>(*rest, 40);
  if (header < kEntryHeaderBytes || header > rest->size() ||
      padded > rest->size() - header) {
    return Invalid("fat binary entry: " +
                   Numbers(std::uint64_t{header} + padded, rest->size()));
  }
  if (packed > padded) {
    return Invalid("fat binary entry: compressed size exceeds the payload: " +
                   Numbers(packed, padded));
  }
  Entry entry;
  entry.kind = static_cast<EntryKind>(Load<std::uint16_t>(*rest, 0));
  entry.sm = Load<std::uint32_t>(*rest, 28);
  entry.arch_specific = (flags & kFlagArchSpecific) != 0;
  entry.compression = CompressionOf(flags, packed);
  entry.unit = unit;
  entry.payload = rest->subspan(header, packed != 0 ? packed : padded);
  entry.code_bytes = packed != 0 ? Load<std::uint64_t>(*rest, 56) : padded;
  out->push_back(entry);
  *rest = rest->subspan(std::size_t{header} + padded);
  return OkStatus();
}

// Reads the fat binary at the head of `rest` and cuts it off.
Status TakeFatbin(std::span<const std::byte>* rest, std::uint32_t unit,
                  std::vector<Entry>* out) {
  if (rest->size() < kFatbinHeaderBytes) {
    return Invalid("fat binary header: " +
                   Numbers(kFatbinHeaderBytes, rest->size()));
  }
  if (Load<std::uint32_t>(*rest, 0) != kFatbinMagic) {
    return Invalid("fat binary: wrong magic number");
  }
  const auto version = Load<std::uint16_t>(*rest, 4);
  const auto header = Load<std::uint16_t>(*rest, 6);
  const auto body = Load<std::uint64_t>(*rest, 8);
  if (version != 1) {
    return Invalid("fat binary of version " + std::to_string(version) +
                   "; version 1 is known");
  }
  if (header < kFatbinHeaderBytes || header > rest->size() ||
      body > rest->size() - header) {
    return Invalid("fat binary: " + Numbers(body, rest->size()));
  }
  std::span<const std::byte> entries = rest->subspan(header, body);
  while (!entries.empty()) {
    POS_RETURN_IF_ERROR(TakeEntry(&entries, unit, out));
  }
  *rest = rest->subspan(header + body);
  return OkStatus();
}

std::string_view TextOf(std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  return {text, ::strnlen(text, bytes.size())};
}

Status UnpackZstd(std::span<const std::byte> packed, std::string* out) {
  const std::size_t n =
      ::ZSTD_decompress(out->data(), out->size(), packed.data(), packed.size());
  if (::ZSTD_isError(n) != 0) {
    return Invalid(std::string("fat binary entry: zstd: ") +
                   ::ZSTD_getErrorName(n));
  }
  if (n != out->size()) {
    return Invalid("fat binary entry: zstd: " + Numbers(out->size(), n));
  }
  return OkStatus();
}

Status UnpackLz4(std::span<const std::byte> packed, std::string* out) {
  const int n = ::LZ4_decompress_safe(
      reinterpret_cast<const char*>(packed.data()), out->data(),
      static_cast<int>(packed.size()), static_cast<int>(out->size()));
  if (n < 0 || static_cast<std::size_t>(n) != out->size()) {
    return Invalid("fat binary entry: LZ4 block is damaged");
  }
  return OkStatus();
}

}  // namespace

Result<std::vector<Entry>> ListEntries(std::span<const std::byte> image) {
  std::vector<Entry> entries;
  const std::uint32_t magic =
      image.size() >= 4 ? Load<std::uint32_t>(image, 0) : 0;
  if (magic == kFatbinMagic) {
    for (std::uint32_t unit = 0; !image.empty(); ++unit) {
      POS_RETURN_IF_ERROR(TakeFatbin(&image, unit, &entries));
      while (!image.empty() && image.front() == std::byte{0}) {
        image = image.subspan(1);
      }
    }
    return entries;
  }
  Entry entry;
  entry.payload = image;
  entry.code_bytes = image.size();
  if (magic == kElfMagic) {
    entry.kind = EntryKind::kElf;
  } else if (magic == kWrapperMagic) {
    return Invalid("a fat binary wrapper came with pointers in it");
  } else {
    entry.sm = PtxTarget(TextOf(image), &entry.arch_specific);
    if (entry.sm == 0) {
      return Invalid("code image is neither fat binary, cubin nor PTX");
    }
  }
  entries.push_back(entry);
  return entries;
}

Result<std::string> ReadCode(const Entry& entry) {
  if (entry.code_bytes > kMaxCodeBytes) {
    return Invalid("fat binary entry of " + std::to_string(entry.code_bytes) +
                   " bytes; the limit is " + std::to_string(kMaxCodeBytes));
  }
  std::string code;
  switch (entry.compression) {
    case Compression::kNone:
      if (!entry.payload.empty()) {
        code.assign(reinterpret_cast<const char*>(entry.payload.data()),
                    entry.payload.size());
      }
      break;
    case Compression::kZstd:
      // The frame names its size too; a header that lies is found out before
      // anything is allocated.
      if (::ZSTD_getFrameContentSize(
              entry.payload.data(), entry.payload.size()) != entry.code_bytes) {
        return Invalid("fat binary entry: not a zstd frame of " +
                       std::to_string(entry.code_bytes) + " bytes");
      }
      code.resize(entry.code_bytes);
      POS_RETURN_IF_ERROR(UnpackZstd(entry.payload, &code));
      break;
    case Compression::kLz4:
      // An LZ4 block grows by less than 255 times.
      if (entry.code_bytes / 255 > entry.payload.size()) {
        return Invalid("fat binary entry: LZ4 block cannot hold " +
                       std::to_string(entry.code_bytes) + " bytes");
      }
      code.resize(entry.code_bytes);
      POS_RETURN_IF_ERROR(UnpackLz4(entry.payload, &code));
      break;
    case Compression::kUnknown:
      return Invalid("fat binary entry: unknown compression");
  }
  if (entry.kind == EntryKind::kPtx) {
    code.resize(::strnlen(code.data(), code.size()));
  }
  return code;
}

int BestPtx(std::span<const Entry> entries, std::uint32_t unit,
            std::uint32_t sm) {
  int best = -1;
  std::uint32_t best_rank = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    if (entry.kind != EntryKind::kPtx || entry.unit != unit) continue;
    if (entry.sm > sm || (entry.arch_specific && entry.sm != sm)) continue;
    const std::uint32_t rank = entry.sm * 2 + (entry.arch_specific ? 1 : 0) + 1;
    if (rank > best_rank) {
      best_rank = rank;
      best = static_cast<int>(i);
    }
  }
  return best;
}

Result<std::vector<std::string>> SelectPtx(std::span<const std::byte> image,
                                           std::uint32_t sm) {
  POS_ASSIGN_OR_RETURN(const std::vector<Entry> entries, ListEntries(image));
  std::vector<std::string> texts;
  const std::uint32_t units = entries.empty() ? 0 : entries.back().unit + 1;
  for (std::uint32_t unit = 0; unit < units; ++unit) {
    const int best = BestPtx(entries, unit, sm);
    if (best < 0) continue;
    POS_ASSIGN_OR_RETURN(std::string text,
                         ReadCode(entries[static_cast<std::size_t>(best)]));
    texts.push_back(std::move(text));
  }
  return texts;
}

std::uint32_t PtxTarget(std::string_view text, bool* arch_specific) {
  *arch_specific = false;
  constexpr std::string_view kDirective = ".target";
  constexpr std::string_view kPrefix = "sm_";
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t eol = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, eol - at);
    at = eol + 1;
    const std::size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string_view::npos) continue;
    line.remove_prefix(first);
    if (line.substr(0, kDirective.size()) != kDirective) continue;
    const std::size_t sm = line.find(kPrefix);
    if (sm == std::string_view::npos) return 0;
    line.remove_prefix(sm + kPrefix.size());
    std::uint32_t version = 0;
    std::size_t digits = 0;
    while (digits < line.size() && digits < 4 && line[digits] >= '0' &&
           line[digits] <= '9') {
      version = version * 10 + static_cast<std::uint32_t>(line[digits++] - '0');
    }
    *arch_specific = digits < line.size() && line[digits] == 'a';
    return version;
  }
  return 0;
}

}  // namespace pos::fatbin
