#include "pos/cuda_impl/fatbin/cubin.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string_view>

namespace pos::fatbin {
namespace {

constexpr std::uint16_t kMachineCuda = 190;
constexpr std::uint32_t kReservedSharedBytes = 1024;
// The driver's own limit of a parameter block is 32,764 bytes.
constexpr std::uint32_t kMaxParams = 8192;

enum Attribute : std::uint8_t {
  kMaxThreads = 0x05,
  kRequiredThreads = 0x10,
  kFrameBytes = 0x11,
  kParam = 0x17,
  kParamsBytes = 0x19,
  kRegisters = 0x2f,
};
constexpr std::uint8_t kFormatSized = 4;

using Bytes = std::span<const std::byte>;

template <typename T>
T Load(Bytes bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

// NUL-terminated string at `offset`; empty when it runs out of the table.
std::string_view StringAt(Bytes table, std::size_t offset) {
  if (offset >= table.size()) return {};
  const auto* text = reinterpret_cast<const char*>(table.data()) + offset;
  const std::size_t room = table.size() - offset;
  const std::size_t length = ::strnlen(text, room);
  return length == room ? std::string_view() : std::string_view(text, length);
}

struct Section {
  std::string_view name;
  std::uint32_t type = 0;
  std::uint64_t size = 0;  // also of sections without bytes in the file
  std::uint32_t link = 0;
  Bytes bytes;
};

// One record of a .nv.info section.
struct Info {
  std::uint8_t attribute = 0;
  std::uint16_t value = 0;  // formats other than "sized"
  Bytes bytes;
};

// Calls `use` for each record; stops at one that does not fit.
template <typename Use>
void ForEachInfo(Bytes section, const Use& use) {
  while (section.size() >= 4) {
    Info info;
    const auto format = Load<std::uint8_t>(section, 0);
    info.attribute = Load<std::uint8_t>(section, 1);
    info.value = Load<std::uint16_t>(section, 2);
    section = section.subspan(4);
    if (format == kFormatSized) {
      if (info.value > section.size()) return;
      info.bytes = section.first(info.value);
      section = section.subspan(info.value);
    }
    use(info);
  }
}

class Reader {
 public:
  explicit Reader(Bytes elf) : elf_(elf) {}

  Result<Cubin> Read() {
    POS_RETURN_IF_ERROR(ReadSections());
    for (const Section& section : sections_) {
      if (section.name == ".nv.constant3") {
        cubin_.constant_bytes = Clamp(section.size);
      }
      if (section.name == ".nv.shared.reserved.0") {
        reserved_bytes_ = kReservedSharedBytes;
      }
      if (!section.name.empty()) by_name_.emplace(section.name, &section);
    }
    ReadSymbols();
    ReadModuleInfo();
    return std::move(cubin_);
  }

 private:
  static std::uint32_t Clamp(std::uint64_t value) {
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(value, 0xffffffffu));
  }

  Status ReadSections() {
    if (elf_.size() < sizeof(Elf64_Ehdr)) {
      return Invalid("cubin: need " + std::to_string(sizeof(Elf64_Ehdr)) +
                     " bytes, " + std::to_string(elf_.size()) + " are there");
    }
    const auto head = Load<Elf64_Ehdr>(elf_, 0);
    if (std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
        head.e_ident[EI_CLASS] != ELFCLASS64 ||
        head.e_ident[EI_DATA] != ELFDATA2LSB ||
        head.e_machine != kMachineCuda) {
      return Invalid("cubin: not a 64-bit ELF file for a CUDA device");
    }
    cubin_.sm = head.e_ident[EI_ABIVERSION] >= 8 ? (head.e_flags >> 8) & 0xff
                                                 : head.e_flags & 0xff;
    const std::uint64_t table =
        std::uint64_t{head.e_shnum} * sizeof(Elf64_Shdr);
    if ((head.e_shnum != 0 && head.e_shentsize != sizeof(Elf64_Shdr)) ||
        head.e_shoff > elf_.size() || table > elf_.size() - head.e_shoff) {
      return Invalid("cubin: the section table runs past the end");
    }
    for (std::size_t i = 0; i < head.e_shnum; ++i) {
      const auto raw =
          Load<Elf64_Shdr>(elf_, head.e_shoff + i * sizeof(Elf64_Shdr));
      Section section;
      section.type = raw.sh_type;
      section.size = raw.sh_size;
      section.link = raw.sh_link;
      if (raw.sh_type != SHT_NOBITS && raw.sh_type != SHT_NULL) {
        if (raw.sh_offset > elf_.size() ||
            raw.sh_size > elf_.size() - raw.sh_offset) {
          return Invalid("cubin: section " + std::to_string(i) +
                         " runs past the end");
        }
        section.bytes = elf_.subspan(raw.sh_offset, raw.sh_size);
      }
      name_offsets_.push_back(raw.sh_name);
      sections_.push_back(section);
    }
    if (head.e_shstrndx < sections_.size()) {
      const Bytes names = sections_[head.e_shstrndx].bytes;
      for (std::size_t i = 0; i < sections_.size(); ++i) {
        sections_[i].name = StringAt(names, name_offsets_[i]);
      }
    }
    return OkStatus();
  }

  const Section* Find(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
  }

  void ReadSymbols() {
    const Section* symbols = Find(".symtab");
    if (symbols == nullptr || symbols->link >= sections_.size()) return;
    const Bytes names = sections_[symbols->link].bytes;
    const std::size_t count = symbols->bytes.size() / sizeof(Elf64_Sym);
    for (std::size_t i = 0; i < count; ++i) {
      const auto symbol =
          Load<Elf64_Sym>(symbols->bytes, i * sizeof(Elf64_Sym));
      // Kernels may be local symbols, too: those that were not `.visible`, as
      // the one that cublasCreate looks for.
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC) continue;
      const std::string_view name = StringAt(names, symbol.st_name);
      if (name.empty()) continue;
      // Only kernels have a constant bank 0, where their parameters lie.
      const std::string suffix(name);
      const Section* info = Find(".nv.info." + suffix);
      if (info == nullptr || Find(".nv.constant0." + suffix) == nullptr) {
        continue;
      }
      kernel_of_symbol_.emplace(i, cubin_.kernels.size());
      cubin_.kernels.push_back(ReadKernel(suffix, info->bytes));
    }
  }

  CubinKernel ReadKernel(const std::string& name, Bytes info) const {
    CubinKernel kernel;
    kernel.name = name;
    if (const Section* shared = Find(".nv.shared." + name)) {
      const std::uint32_t bytes = Clamp(shared->size);
      kernel.shared_bytes = bytes - std::min(bytes, reserved_bytes_);
    }
    ForEachInfo(info, [&kernel](const Info& record) {
      ReadKernelRecord(record, &kernel);
    });
    return kernel;
  }

  static void ReadKernelRecord(const Info& record, CubinKernel* kernel) {
    switch (record.attribute) {
      case kParam: {
        if (record.bytes.size() < 12) return;
        const auto ordinal = Load<std::uint16_t>(record.bytes, 4);
        if (ordinal >= kMaxParams) return;
        if (kernel->params.size() <= ordinal) {
          kernel->params.resize(std::size_t{ordinal} + 1);
        }
        kernel->params[ordinal] = {Load<std::uint16_t>(record.bytes, 6),
                                   Load<std::uint32_t>(record.bytes, 8) >> 18};
        return;
      }
      case kParamsBytes:
        kernel->params_bytes = record.value;
        return;
      case kMaxThreads:
      case kRequiredThreads: {
        if (record.bytes.size() < 12) return;
        const std::uint64_t xy =
            std::uint64_t{Load<std::uint32_t>(record.bytes, 0)} *
            Load<std::uint32_t>(record.bytes, 4);
        kernel->max_threads = Clamp(
            Clamp(xy) * std::uint64_t{Load<std::uint32_t>(record.bytes, 8)});
        return;
      }
      default:
        return;
    }
  }

  void ReadModuleInfo() {
    const Section* info = Find(".nv.info");
    if (info == nullptr) return;
    ForEachInfo(info->bytes, [this](const Info& record) {
      if (record.bytes.size() < 8) return;
      const auto kernel =
          kernel_of_symbol_.find(Load<std::uint32_t>(record.bytes, 0));
      if (kernel == kernel_of_symbol_.end()) return;
      const auto value = Load<std::uint32_t>(record.bytes, 4);
      CubinKernel& target = cubin_.kernels[kernel->second];
      if (record.attribute == kRegisters) target.registers = value;
      if (record.attribute == kFrameBytes) target.frame_bytes = value;
    });
  }

  const Bytes elf_;
  Cubin cubin_;
  std::uint32_t reserved_bytes_ = 0;
  std::vector<Section> sections_;
  std::vector<std::uint32_t> name_offsets_;
  std::map<std::string, const Section*, std::less<>> by_name_;
  std::map<std::size_t, std::size_t> kernel_of_symbol_;
};

}  // namespace

Result<Cubin> ReadCubin(std::span<const std::byte> elf) {
  return Reader(elf).Read();
}

}  // namespace pos::fatbin
