// Opcodes that a row of opcodes.def stands for.
#ifndef TESTS_POS_CUDA_IMPL_PTX_SPELLINGS_H_
#define TESTS_POS_CUDA_IMPL_PTX_SPELLINGS_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace pos::ptx::testing {

// The choices of each word of a row's pattern; "" stands for leaving it out.
std::vector<std::vector<std::string_view>> Choices(std::size_t row);

// All combinations when there are at most `most`; otherwise each choice of
// each word at least once, and random combinations up to `most`. Only what PTX
// has (reference.h: Exists), and only what finds this row first.
std::vector<std::string> Spellings(std::size_t row, std::size_t most);

// "add_f32_17" for row 17: a name for tests.
std::string RowName(std::size_t row);

}  // namespace pos::ptx::testing

#endif  // TESTS_POS_CUDA_IMPL_PTX_SPELLINGS_H_
