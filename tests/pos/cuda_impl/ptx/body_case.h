// A kernel body about one instruction that needs more than registers, and what
// its threads must leave behind.
#ifndef TESTS_POS_CUDA_IMPL_PTX_BODY_CASE_H_
#define TESTS_POS_CUDA_IMPL_PTX_BODY_CASE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "harness.h"

namespace pos::ptx::testing {

// 64-bit results per thread.
constexpr std::size_t kResults = 8;

struct BodyCase {
  std::string opcode;  // what it is about; the body contains it
  // May use, besides what it declares:
  //   %in       address of `in`
  //   %out      address of this thread's kResults results, zero before
  //   %i        number of the thread in the grid
  //   %h0 … %h19 (16 bits), %r0 … %r39, %d0 … %d39, %q0 … %q3 (128), %p0 … %p9
  std::string body;
  std::string module;  // declarations at module scope
  std::uint32_t blocks = 1;
  std::uint32_t threads = 32;
  std::vector<std::uint64_t> in;
  std::vector<std::uint64_t> want;     // kResults for each thread
  std::vector<std::uint64_t> want_in;  // `in` afterwards; empty: as before
  std::int32_t error = 0;              // the fault to end with
  std::string error_text;              // what its text contains
  int workers = 1;                     // threads that run the blocks
  std::uint64_t budget = 100000;       // of one turn of theirs

  // Results of all threads, zero to begin with.
  std::uint64_t& Want(std::size_t thread, std::size_t result = 0) {
    want.resize(std::size_t{blocks} * threads * kResults);
    return want[thread * kResults + result];
  }
};

// For each row of opcodes.def that value_runner.h cannot run.
std::vector<BodyCase> MemoryCases();
std::vector<BodyCase> AtomicCases();
std::vector<BodyCase> WarpCases();
std::vector<BodyCase> FlowCases();
std::vector<BodyCase> OtherCases();
std::vector<BodyCase> MmaCases();
std::vector<BodyCase> WmmaCases();
std::vector<BodyCase> AsyncCases();

// The module's text.
std::string TextOf(const BodyCase& test);

// Fails the test when something is not as wanted.
void CheckBody(const BodyCase& test, IsaLevel level);
void CheckAllLevels(const BodyCase& test);

}  // namespace pos::ptx::testing

#endif  // TESTS_POS_CUDA_IMPL_PTX_BODY_CASE_H_
