// A second PTX machine: one thread at a time, one instruction at a time, from
// the statements as they were parsed. Nothing of the interpreter's decoding,
// register allocation, scheduling or arithmetic is in it; values are those of
// reference.h. Slow, and simple enough to be believed.
//
// A thread runs until it waits for others (a barrier, an instruction of the
// whole warp) or ends; then the next one does. So it is for programs whose
// results do not depend on the order of threads.
//
// Threads: one at a time.
#ifndef TESTS_POS_CUDA_IMPL_PTX_MACHINE_H_
#define TESTS_POS_CUDA_IMPL_PTX_MACHINE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "pos/base/status.h"
#include "pos/cuda_impl/ptx/ast.h"
#include "pos/cuda_impl/ptx/exec.h"
#include "pos/cuda_impl/ptx/opcodes.h"
#include "reference.h"

namespace pos::ptx::testing {

// Bytes, and which of them the program has written: to read others is refused.
struct Bytes {
  std::vector<std::byte> value;
  std::vector<bool> written;
  void Resize(std::size_t size) {
    value.resize(size);
    written.resize(size);
  }
};

// One call of a function by one thread.
struct Activation {
  const ast::Function* function = nullptr;
  std::vector<std::uint64_t> registers;
  std::vector<bool> written;  // registers
  Bytes params;               // .param variables of the body, then formals
  std::vector<std::uint32_t> variable_at;  // in `params`, or in local memory
  std::vector<std::uint32_t> return_at;
  std::vector<std::uint32_t> param_at;
  std::uint32_t local_begin = 0;
  std::uint32_t local_end = 0;
  std::uint32_t next = 0;  // instruction
  bool carry = false;
};

enum class ThreadState : std::uint8_t { kReady, kBarrier, kCollective, kDone };

struct Thread {
  std::uint32_t number = 0;  // in the block
  ThreadState state = ThreadState::kReady;
  std::vector<Activation> calls;
  Bytes local;
  // What it waits for.
  const OpcodeInfo* opcode = nullptr;
  std::uint32_t mask = 0;     // members
  std::uint32_t barrier = 0;  // number
  std::vector<std::uint64_t> sources;

  [[nodiscard]] std::uint32_t lane() const { return number % 32; }
  [[nodiscard]] std::uint32_t warp() const { return number / 32; }
};

class Machine {
 public:
  struct Launch {
    std::uint32_t blocks = 1;
    std::uint32_t threads = 32;
    std::span<const std::byte> params;
    std::uint64_t most_steps = 1u << 20;  // instructions of threads
  };

  // `memory` says which global addresses exist.
  Machine(const ast::Unit& unit, MemoryView* memory);

  // kAborted: more steps than allowed. kInvalid, with the reason: the program
  // does what it must not, or what this machine has not.
  Status Run(std::string_view kernel, const Launch& launch);
  [[nodiscard]] std::uint64_t steps() const { return steps_; }

 private:
  // machine.cc: threads, blocks, what they wait for
  Status RunBlock(const ast::Function& kernel);
  Status RunThread(Thread* thread);
  Status Step(Thread* thread);
  bool CompleteBarriers();
  Result<bool> CompleteCollectives();
  Status Collective(std::span<Thread* const> group);
  Activation Enter(const ast::Function& function, std::uint32_t local_begin);

  // machine_flow.cc
  Status Flow(Thread* t, const ast::Instruction& in, const OpcodeInfo& op);
  Status Call(Thread* t, const ast::Instruction& in);
  Status Return(Thread* t);
  Status Wait(Thread* t, const ast::Instruction& in, const OpcodeInfo& op);
  Status CopyParameters(Thread* t, const ast::Instruction& in, bool results,
                        Activation* caller, Activation* callee);

  // machine_data.cc
  Status Compute(Thread* t, const ast::Instruction& in, const OpcodeInfo& op);
  Status Move(Thread* t, const ast::Instruction& in, const OpcodeInfo& op);
  Status Convert(Thread* t, const ast::Instruction& in, const OpcodeInfo& op);
  Result<std::uint64_t> Read(Thread* t, const ast::Operand& operand,
                             std::uint32_t bytes);
  Result<std::uint64_t> Special(const Thread& t, std::uint32_t special) const;
  Status Write(Thread* t, const ast::Operand& operand, std::uint64_t bits);

  // machine_memory.cc
  Status Access(Thread* t, const ast::Instruction& in, const OpcodeInfo& op);
  Status Atomic(Thread* t, const ast::Instruction& in, const OpcodeInfo& op);
  // Where an access goes. To load what was never written is refused.
  Result<std::byte*> Place(Thread* t, const ast::Operand& memory,
                           const OpcodeInfo& op, std::uint32_t bytes,
                           bool loads, bool* shared);
  Result<std::byte*> ParamPlace(Thread* t, const ast::Operand& base,
                                std::uint32_t bytes, bool loads);

  const ast::Unit& unit_;
  MemoryView* memory_;
  std::vector<OpcodeInfo> opcodes_;  // of unit_.opcodes
  Launch launch_;
  std::uint64_t steps_ = 0;
  // Of the running block.
  std::uint32_t block_ = 0;
  std::vector<Thread> threads_;
  Bytes shared_;
  std::map<std::uint32_t, std::uint32_t> shared_at_;  // by Unit::shared
};

// Marks the bytes as written, or says whether they are.
bool Touch(Bytes* bytes, std::uint64_t at, std::uint64_t count, bool loads);

// Width of an operand by its letter in opcodes.def; 0: a predicate.
std::uint32_t WidthOfLetter(char letter, const OpcodeInfo& op);

}  // namespace pos::ptx::testing

#endif  // TESTS_POS_CUDA_IMPL_PTX_MACHINE_H_
