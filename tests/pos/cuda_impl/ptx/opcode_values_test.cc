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

// What stands at the operands of video instructions.
TEST(VideoOperands, AreTheReferences) {
  std::vector<std::string> spellings;
  for (const std::string op :
       {"vadd.u32.s32.u32", "vsub.s32.u32.s32.sat", "vabsdiff.u32.u32.s32",
        "vmin.s32.s32.u32.sat", "vmax.u32.u32.u32", "vshl.s32.s32.u32.clamp",
        "vshr.u32.s32.u32.sat.wrap", "vset.s32.u32.lt"}) {
    for (const std::string place : {"_", ".b0", ".b3", ".h0", ".h1"}) {
      for (const std::string parts : {"_ _", ".b1 .h1", ".h0 .b3", ".b2 .b0"}) {
        spellings.push_back(op + " " + place + " " + parts);
      }
    }
    for (const std::string second : {"add", "min", "max"}) {
      spellings.push_back(op + "." + second + " _ .b3 .h1");
    }
  }
  for (const std::string op : {"vadd4.u32.s32.u32", "vsub4.s32.u32.s32.sat",
                               "vabsdiff4.u32.u32.u32.add", "vset4.u32.s32.gt",
                               "vavrg4.s32.s32.s32.add"}) {
    for (const std::string marks :
         {".b0", ".b31", ".b320 .b0123 .b7777", "_ .b7041 _"}) {
      spellings.push_back(op + " " + marks);
    }
  }
  for (const std::string op : {"vadd2.u32.s32.u32.sat", "vmax2.s32.u32.s32",
                               "vabsdiff2.u32.u32.u32.add"}) {
    for (const std::string marks : {".h0", ".h1 .h23 .h00", ".h10 .h12 _"}) {
      spellings.push_back(op + " " + marks);
    }
  }
  for (const std::string types :
       {"u32.u32.u32", "s32.u32.s32", "s32.s32.s32"}) {
    for (const std::string marks :
         {"_ -.b1 .h0", "_ .h1 - _", "_ _ _ -", "_ - - _", "_ .b3 .b2"}) {
      for (const std::string word : {"", ".sat", ".shr7", ".sat.shr15"}) {
        spellings.push_back("vmad." + types + word + " " + marks);
      }
    }
  }
  for (const std::string& spelling : spellings) {
    for (const IsaLevel level : RunnableLevels()) {
      SCOPED_TRACE(spelling);
      CheckValues(spelling, Use::kFull, level);
      CheckValues(spelling, Use::kGuarded, level);
      if (HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace pos::ptx::testing
