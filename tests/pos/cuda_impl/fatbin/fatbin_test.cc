#include "pos/cuda_impl/fatbin/fatbin.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <string>

#include "pos/base/files.h"
#include "pos/cuda_impl/fatbin/cubin.h"

namespace pos::fatbin {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

std::string Data(const std::string& name) {
  auto file = ReadWholeFile(std::string(POS_TEST_DATA) + "/" + name);
  EXPECT_TRUE(file.ok()) << name;
  return file.ok() ? *file : std::string();
}

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::vector<std::string> Ptx(const std::string& image, std::uint32_t sm) {
  auto texts = SelectPtx(Bytes(image), sm);
  EXPECT_TRUE(texts.ok()) << texts.status().ToString();
  return texts.ok() ? *texts : std::vector<std::string>();
}

const CubinKernel& Kernel(const Cubin& cubin, const std::string& name) {
  for (const CubinKernel& kernel : cubin.kernels) {
    if (kernel.name == name) return kernel;
  }
  ADD_FAILURE() << "no kernel " << name;
  static const CubinKernel none;
  return none;
}

TEST(SelectPtx, FindsTheSameTextUnderEveryCompression) {
  for (const char* name : {"zstd.fatbin", "lz4.fatbin", "plain.fatbin"}) {
    SCOPED_TRACE(name);
    const auto texts = Ptx(Data(name), 90);
    ASSERT_THAT(texts, SizeIs(1));
    EXPECT_THAT(texts[0], HasSubstr(".visible .entry _Z4vaddPKfS0_Pfi("));
    EXPECT_EQ(texts[0].find('\0'), std::string::npos);
    EXPECT_EQ(texts[0].substr(texts[0].find_last_not_of('\n'), 2), "}\n");
  }
  EXPECT_EQ(Ptx(Data("zstd.fatbin"), 90), Ptx(Data("lz4.fatbin"), 90));
}

TEST(SelectPtx, TakesTheHighestTargetThatTheDeviceReaches) {
  const std::string image = Data("several.fatbin");
  const std::map<std::uint32_t, std::uint32_t> want = {
      {75, 75}, {80, 75}, {89, 75}, {90, 90}, {99, 90}, {100, 100}, {120, 100}};
  for (const auto& [device, target] : want) {
    SCOPED_TRACE(device);
    const auto texts = Ptx(image, device);
    ASSERT_THAT(texts, SizeIs(1));
    bool specific = true;
    EXPECT_EQ(PtxTarget(texts[0], &specific), target);
    EXPECT_FALSE(specific);
  }
  EXPECT_TRUE(Ptx(image, 70).empty());
  EXPECT_TRUE(Ptx(Data("newer.fatbin"), 90).empty());
}

TEST(SelectPtx, TakesArchSpecificPtxOnlyOnThatArchitecture) {
  const std::string image = Data("arch_specific.fatbin");
  bool specific = false;
  ASSERT_THAT(Ptx(image, 90), SizeIs(1));
  EXPECT_EQ(PtxTarget(Ptx(image, 90)[0], &specific), 90u);
  EXPECT_TRUE(specific);
  ASSERT_THAT(Ptx(image, 100), SizeIs(1));
  EXPECT_EQ(PtxTarget(Ptx(image, 100)[0], &specific), 90u);
  EXPECT_FALSE(specific);
}

TEST(SelectPtx, GivesOneTextPerConcatenatedFatbin) {
  // The order of a -rdc=true wrapper: linked (here without PTX), then units.
  const auto texts = Ptx(Data("newer.fatbin") + Data("relocatable.fatbin") +
                             std::string(16, '\0') + Data("zstd.fatbin"),
                         90);
  ASSERT_THAT(texts, SizeIs(2));
  EXPECT_THAT(texts[0], HasSubstr("vadd"));
  EXPECT_THAT(texts[1], HasSubstr("vadd"));
}

TEST(SelectPtx, GivesBareTextAndNothingForACubin) {
  const std::string text = "// x\n\t.version 8.0\n.target sm_80, debug\n";
  EXPECT_EQ(Ptx(text + '\0', 90), std::vector<std::string>{text});
  EXPECT_TRUE(Ptx(text, 75).empty());
  EXPECT_TRUE(Ptx(Data("sm90.cubin"), 90).empty());
}

TEST(ListEntries, ListsKindsAndArchitectures) {
  const std::string image = Data("several.fatbin");
  const auto entries = ListEntries(Bytes(image));
  ASSERT_TRUE(entries.ok());
  std::vector<std::pair<EntryKind, std::uint32_t>> found;
  for (const Entry& e : *entries) found.emplace_back(e.kind, e.sm);
  EXPECT_THAT(
      found, ::testing::UnorderedElementsAre(std::pair(EntryKind::kPtx, 75u),
                                             std::pair(EntryKind::kElf, 75u),
                                             std::pair(EntryKind::kPtx, 90u),
                                             std::pair(EntryKind::kElf, 90u),
                                             std::pair(EntryKind::kPtx, 100u)));
  const std::string lto = Data("lto.fatbin");
  const auto ir = ListEntries(Bytes(lto));
  ASSERT_TRUE(ir.ok());
  EXPECT_EQ(ir->back().kind, EntryKind::kLtoIr);
}

TEST(ListEntries, RefusesEveryTruncationWithoutReadingPastIt) {
  for (const char* name : {"zstd.fatbin", "lz4.fatbin", "sm90.cubin"}) {
    const std::string image = Data(name);
    // The program headers, which are not needed, end a cubin.
    const std::size_t needed = image.size() - 6 * 56;
    for (std::size_t keep = 0; keep < needed; keep += 1 + keep / 97) {
      SCOPED_TRACE(keep);
      // A copy of its own, so that ASan sees one byte too far.
      const std::vector<std::byte> cut(
          Bytes(image).begin(),
          Bytes(image).begin() + static_cast<std::ptrdiff_t>(keep));
      const auto entries = ListEntries(cut);
      if (!entries.ok()) continue;
      for (const Entry& e : *entries) {
        if (e.kind == EntryKind::kElf) {
          const auto code = ReadCode(e);
          if (code.ok()) {
            EXPECT_FALSE(ReadCubin(Bytes(*code)).ok());
          }
        }
      }
    }
  }
}

TEST(ListEntries, SurvivesDamage) {
  std::mt19937 random(1);
  for (const char* name : {"zstd.fatbin", "lz4.fatbin", "plain.fatbin"}) {
    const std::string image = Data(name);
    for (int round = 0; round < 300; ++round) {
      std::string bad = image;
      for (int k = 0; k < 4; ++k) {
        const std::size_t at = random() % (round % 2 ? 200 : bad.size());
        bad[at] = static_cast<char>(random());
      }
      const auto entries = ListEntries(Bytes(bad));
      if (!entries.ok()) continue;
      for (const Entry& e : *entries) {
        const auto code = ReadCode(e);
        if (code.ok()) ReadCubin(Bytes(*code)).status().IgnoreError();
      }
    }
  }
}

TEST(ReadCode, RefusesASizeThatTheDataCannotHold) {
  for (const char* name : {"zstd.fatbin", "lz4.fatbin"}) {
    std::string image = Data(name);
    const std::uint64_t huge = kMaxCodeBytes;
    std::memcpy(image.data() + 16 + 56, &huge, sizeof(huge));
    const auto entries = ListEntries(Bytes(image));
    ASSERT_TRUE(entries.ok());
    EXPECT_EQ(ReadCode(entries->front()).status().code(), Code::kInvalid);
    const std::uint64_t more = kMaxCodeBytes + 1;
    std::memcpy(image.data() + 16 + 56, &more, sizeof(more));
    const auto again = ListEntries(Bytes(image));
    EXPECT_THAT(ReadCode(again->front()).status().message(),
                HasSubstr(std::to_string(kMaxCodeBytes)));
  }
}

TEST(PtxTarget, ReadsTheDirectiveOnly) {
  bool specific = false;
  EXPECT_EQ(PtxTarget("// .target sm_20\n.target sm_90a\n", &specific), 90u);
  EXPECT_TRUE(specific);
  EXPECT_EQ(PtxTarget(".target sm_120", &specific), 120u);
  EXPECT_FALSE(specific);
  EXPECT_EQ(PtxTarget("hello", &specific), 0u);
  EXPECT_EQ(PtxTarget(".target ", &specific), 0u);
}

void CheckSample(const Cubin& cubin, bool linked) {
  ASSERT_THAT(cubin.kernels, SizeIs(7));  // without the device function
  const CubinKernel& mixed = Kernel(cubin, "_Z5mixedcsx6float31SPi");
  ASSERT_THAT(mixed.params, SizeIs(6));
  const std::vector<std::pair<std::uint32_t, std::uint32_t>> want = {
      {0, 1}, {2, 2}, {8, 8}, {16, 12}, {32, 24}, {56, 8}};
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(mixed.params[i].offset, want[i].first) << i;
    EXPECT_EQ(mixed.params[i].bytes, want[i].second) << i;
  }
  EXPECT_EQ(mixed.params_bytes, 64u);
  EXPECT_EQ(mixed.shared_bytes, 400u);
  EXPECT_GT(mixed.registers, 0u);
  EXPECT_EQ(Kernel(cubin, "_Z8noparamsv").params_bytes, 0u);
  EXPECT_THAT(Kernel(cubin, "_Z8noparamsv").params, SizeIs(0));
  EXPECT_EQ(Kernel(cubin, "_Z7boundedPi").max_threads, 256u);
  EXPECT_EQ(Kernel(cubin, "_Z8stackfulPii").frame_bytes, 256u);
  EXPECT_EQ(Kernel(cubin, "_Z3big3BigPi").params[0].bytes, 2800u);
  if (linked) {
    EXPECT_EQ(cubin.constant_bytes, 64u);
  }
}

TEST(ReadCubin, FindsLayoutsAndResources) {
  const std::map<std::string, std::uint32_t> files = {
      {"sm90.cubin", 90}, {"sm75.cubin", 75}, {"sm90_rdc.cubin", 90}};
  for (const auto& [name, sm] : files) {
    SCOPED_TRACE(name);
    const std::string elf = Data(name);
    const auto cubin = ReadCubin(Bytes(elf));
    ASSERT_TRUE(cubin.ok()) << cubin.status().ToString();
    EXPECT_EQ(cubin->sm, sm);
    CheckSample(*cubin, name != "sm90_rdc.cubin");
  }
}

// What `.entry` without `.visible` becomes; a driver finds it by its name.
TEST(ReadCubin, FindsKernelsThatAreLocalSymbols) {
  std::string elf = Data("sm90.cubin");
  Elf64_Ehdr header;
  std::memcpy(&header, elf.data(), sizeof(header));
  int made_local = 0;
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr section;
    std::memcpy(&section, &elf[header.e_shoff + i * sizeof(section)],
                sizeof(section));
    if (section.sh_type != SHT_SYMTAB) continue;
    for (std::size_t at = section.sh_offset;
         at < section.sh_offset + section.sh_size; at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      std::memcpy(&symbol, &elf[at], sizeof(symbol));
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC) continue;
      symbol.st_info = ELF64_ST_INFO(STB_LOCAL, STT_FUNC);
      std::memcpy(&elf[at], &symbol, sizeof(symbol));
      ++made_local;
    }
  }
  ASSERT_GE(made_local, 7);
  const auto cubin = ReadCubin(Bytes(elf));
  ASSERT_TRUE(cubin.ok()) << cubin.status().ToString();
  CheckSample(*cubin, /*linked=*/true);
}

TEST(ReadCubin, ReadsTheCubinInsideACompressedFatbin) {
  const std::string image = Data("lz4.fatbin");
  const auto entries = ListEntries(Bytes(image));
  ASSERT_TRUE(entries.ok());
  int cubins = 0;
  for (const Entry& e : *entries) {
    if (e.kind != EntryKind::kElf) continue;
    const auto code = ReadCode(e);
    ASSERT_TRUE(code.ok()) << code.status().ToString();
    const auto cubin = ReadCubin(Bytes(*code));
    ASSERT_TRUE(cubin.ok()) << cubin.status().ToString();
    CheckSample(*cubin, true);
    ++cubins;
  }
  EXPECT_EQ(cubins, 1);
}

TEST(ReadCubin, RefusesAnOrdinaryElfFile) {
  const auto self = ReadWholeFile("/proc/self/exe", 1u << 30);
  ASSERT_TRUE(self.ok());
  EXPECT_EQ(ReadCubin(Bytes(*self)).status().code(), Code::kInvalid);
}

}  // namespace
}  // namespace pos::fatbin
