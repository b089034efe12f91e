// Which functions of a unit a function can call, directly or through a pointer,
// and what follows from it: the memory and the instructions of a whole kernel.
//
// Threads:   one, while the unit is being made; read-only afterwards.
// Ownership: refers to the unit.
#ifndef POS_CUDA_IMPL_PTX_CALL_GRAPH_H_
#define POS_CUDA_IMPL_PTX_CALL_GRAPH_H_

#include <cstdint>
#include <vector>

#include "pos/cuda_impl/ptx/ast.h"

namespace pos::ptx {

// Functions whose address is taken, by an instruction or an initial value:
// what an indirect call may reach. Ascending.
[[nodiscard]] std::vector<std::uint32_t> AddressTaken(const ast::Unit& unit);

// .alias followed to a function with a body, where there is one.
[[nodiscard]] std::uint32_t Unalias(const ast::Unit& unit,
                                    std::uint32_t function);

class CallGraph {
 public:
  // Needs unit.address_taken.
  explicit CallGraph(const ast::Unit& unit);

  // `function` first, then what it can call at any depth, each once. Empty
  // when the graph's total work goes beyond a bound that no real module comes
  // near.
  [[nodiscard]] std::vector<std::uint32_t> Reachable(std::uint32_t function);

  struct Depth {
    std::uint64_t local_bytes = 0;  // deepest chain, one turn of each cycle
    std::uint32_t calls = 0;        // functions in that chain
    bool recursive = false;         // a cycle can be reached
  };
  [[nodiscard]] Depth Deepest(std::uint32_t function) {
    return depths_[function];
  }

 private:
  void AddCalls(const ast::Function& function, std::uint32_t number);
  void ComputeDepths();

  const ast::Unit& unit_;
  std::vector<std::vector<std::uint32_t>> callees_;
  std::vector<Depth> depths_;
  std::vector<std::uint32_t> seen_;  // round in which a function was seen
  std::uint32_t round_ = 0;
  std::uint64_t steps_ = 0;
};

// Bytes of .local that one activation of `function` needs.
[[nodiscard]] std::uint64_t LocalBytes(const ast::Function& function);

}  // namespace pos::ptx

#endif  // POS_CUDA_IMPL_PTX_CALL_GRAPH_H_
