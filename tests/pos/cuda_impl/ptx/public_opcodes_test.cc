// What compilers make of real programs: every opcode of public_opcodes.tsv is
// executed, or stands in refused_opcodes.txt. A line there for one that is
// executed is an error, too, so the list cannot go stale.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <string>

#include "pos/cuda_impl/ptx/opcodes.h"

namespace pos::ptx::testing {
namespace {

// The first column of a file, with what follows it; lines with '#' are remarks.
std::map<std::string, std::string> ReadColumn(const std::string& name) {
  std::ifstream file(std::string(POS_PTX_TEST_DATA_DIR) + "/" + name);
  EXPECT_TRUE(file.good()) << name;
  std::map<std::string, std::string> rows;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const std::size_t end = std::min(line.find('\t'), line.size());
    const bool added = rows.emplace(line.substr(0, end),
                                    line.substr(std::min(end + 1, line.size())))
                           .second;
    EXPECT_TRUE(added) << line << " is twice in " << name;
  }
  return rows;
}

TEST(PublicOpcodes, AreExecutedOrRefusedOnPurpose) {
  const auto opcodes = ReadColumn("public_opcodes.tsv");
  const auto refused = ReadColumn("refused_opcodes.txt");
  ASSERT_GT(opcodes.size(), 700u);
  for (const auto& [opcode, kernels] : opcodes) {
    if (!IsSupported(opcode) && refused.count(opcode) == 0) {
      ADD_FAILURE() << opcode << ", of " << kernels
                    << " kernels, is refused and not in refused_opcodes.txt";
    }
  }
  std::string stale;
  for (const auto& [opcode, rest] : refused) {
    EXPECT_EQ(opcodes.count(opcode), 1u) << opcode << " is no public opcode";
    if (IsSupported(opcode)) stale += opcode + "\n";
  }
  EXPECT_EQ(stale, "") << "lines to remove from refused_opcodes.txt, for these "
                          "are executed now";
}

}  // namespace
}  // namespace pos::ptx::testing
