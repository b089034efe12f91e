// How to make a handle again: the call that created it and the calls that set
// its state, kept as bytes.
//
// Bounded: a step is identified by (op, key), and a later step with the same
// identity takes the place of the earlier one, so a property that is set a
// million times costs one step. The creating step stays first.
//
// Threads: the worker's, like everything it materializes.
#ifndef POS_GRAPH_RECIPE_H_
#define POS_GRAPH_RECIPE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/status.h"
#include "pos/call/api_context.h"

namespace pos {

struct RecipeStep {
  std::uint16_t op = 0;
  std::uint64_t key = 0;               // which property; 0 for the creation
  std::vector<std::byte> args;         // the call's argument structure
  std::vector<std::byte> inline_data;  // the call's payload
  // What the parser decided (ids, addresses) and the device chose, so that the
  // replay arrives at the same values.
  std::vector<std::uint64_t> values;
};

class Recipe {
 public:
  // Adds `context` as a step, or replaces the step with its op and `key`.
  void Record(const ApiContext& context, std::uint64_t key,
              std::span<const std::uint64_t> values);
  [[nodiscard]] const std::vector<RecipeStep>& steps() const { return steps_; }
  [[nodiscard]] bool empty() const { return steps_.empty(); }
  void Clear() { steps_.clear(); }

  void Write(ByteWriter* out) const;
  static Result<Recipe> Read(ByteReader* in);

 private:
  std::vector<RecipeStep> steps_;
};

}  // namespace pos

#endif  // POS_GRAPH_RECIPE_H_
