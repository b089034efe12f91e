// Every arithmetic row of opcodes.def, on every instruction-set level: what an
// instruction computes is what the reference says, lanes that a guard excludes
// keep what they had, and literals are what registers are.
//
// A row without a reference fails its test.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "pos/cuda_impl/ptx/opcodes.h"
#include "spellings.h"
#include "value_runner.h"

namespace pos::ptx::testing {
namespace {

constexpr std::size_t kSpellings = 40;
constexpr std::size_t kCvtSpellings = 400;

std::vector<std::size_t> ValueRows() {
  std::vector<std::size_t> rows;
  for (std::size_t row = 0; row < OpcodeRowCount(); ++row) {
    if (CanRunValues(row)) rows.push_back(row);
  }
  return rows;
}

class OpcodeValues : public ::testing::TestWithParam<std::size_t> {};

INSTANTIATE_TEST_SUITE_P(Rows, OpcodeValues, ::testing::ValuesIn(ValueRows()),
                         [](const ::testing::TestParamInfo<std::size_t>& row) {
                           return RowName(row.param);
                         });

TEST_P(OpcodeValues, AreTheReferences) {
  const bool cvt = GetOpcodeRow(GetParam()).base == "cvt";
  const auto opcodes = Spellings(GetParam(), cvt ? kCvtSpellings : kSpellings);
  ASSERT_FALSE(opcodes.empty()) << "no opcode finds this row";
  for (const std::string& opcode : opcodes) {
    if (opcode == "mov.b128") continue;  // moves_test.cc
    for (const IsaLevel level : RunnableLevels()) {
      SCOPED_TRACE(IsaLevelName(level));
      for (const Use use : {Use::kFull, Use::kGuarded, Use::kImmediate}) {
        CheckValues(opcode, use, level);
        if (HasFatalFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace pos::ptx::testing
