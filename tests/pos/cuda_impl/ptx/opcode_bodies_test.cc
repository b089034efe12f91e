// Every row of opcodes.def that needs more than registers, on every
// instruction-set level; and that no row, and no choice of any word of a row,
// is left without a test.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "body_case.h"
#include "pos/cuda_impl/ptx/opcodes.h"
#include "spellings.h"
#include "value_runner.h"

namespace pos::ptx::testing {
namespace {

void CheckAll(const std::vector<BodyCase>& cases) {
  for (const BodyCase& test : cases) {
    for (const IsaLevel level : RunnableLevels()) {
      CheckBody(test, level);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(OpcodeBodies, LoadsAndStores) { CheckAll(MemoryCases()); }
TEST(OpcodeBodies, Atomics) { CheckAll(AtomicCases()); }
TEST(OpcodeBodies, WarpCollectives) { CheckAll(WarpCases()); }
TEST(OpcodeBodies, Flow) { CheckAll(FlowCases()); }
TEST(OpcodeBodies, MatrixProductsAndRows) { CheckAll(MmaCases()); }
TEST(OpcodeBodies, MatrixFragments) { CheckAll(WmmaCases()); }
TEST(OpcodeBodies, CarriesMovesAddressesParameters) { CheckAll(OtherCases()); }

TEST(OpcodeBodies, CopiesMbarriersClusters) { CheckAll(AsyncCases()); }

// Words of the opcodes that are tested, by row.
std::map<std::size_t, std::set<std::string>> TestedWords() {
  std::map<std::size_t, std::set<std::string>> words;
  const auto add = [&words](const std::string& opcode) {
    const OpcodeInfo info = ParseOpcode(opcode);
    auto& tested = words[info.row];
    tested.insert("");
    for (const std::string_view word : info.words) tested.emplace(word);
  };
  for (const auto cases : {&MemoryCases, &AtomicCases, &WarpCases, &FlowCases,
                           &OtherCases, &AsyncCases, &MmaCases, &WmmaCases}) {
    for (const BodyCase& test : (*cases)()) {
      EXPECT_NE(test.body.find(test.opcode), std::string::npos)
          << "a case for " << test.opcode << " without it";
      add(test.opcode);
    }
  }
  for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
    if (!CanRunValues(row)) continue;
    for (const std::string& opcode : Spellings(row, 40)) add(opcode);
  }
  return words;
}

TEST(OpcodeCoverage, EveryChoiceOfEveryRowHasATest) {
  const auto tested = TestedWords();
  for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
    const auto found = tested.find(row);
    ASSERT_NE(found, tested.end()) << "no test for " << GetOpcodeRow(row).base
                                   << " " << GetOpcodeRow(row).pattern;
    for (const auto& choices : Choices(row)) {
      for (const std::string_view word : choices) {
        EXPECT_TRUE(found->second.count(std::string(word)) != 0)
            << "no test of ." << word << " in row " << row << ": "
            << GetOpcodeRow(row).base << " " << GetOpcodeRow(row).pattern;
      }
    }
  }
}

}  // namespace
}  // namespace pos::ptx::testing
