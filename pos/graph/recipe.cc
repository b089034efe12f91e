#include "pos/graph/recipe.h"

#include <utility>

namespace pos {

void Recipe::Record(const ApiContext& context, std::uint64_t key,
                    std::span<const std::uint64_t> values) {
  RecipeStep step;
  step.op = context.info->op;
  step.key = key;
  const std::byte* const args = context.frame() + sizeof(wire::FrameHeader);
  step.args.assign(args, args + context.info->args_bytes);
  const std::span<const std::byte> payload = context.Inline();
  step.inline_data.assign(payload.begin(), payload.end());
  step.values.assign(values.begin(), values.end());
  for (RecipeStep& old : steps_) {
    if (old.op == step.op && old.key == key) {
      old = std::move(step);
      return;
    }
  }
  steps_.push_back(std::move(step));
}

void Recipe::Write(ByteWriter* out) const {
  out->Put(static_cast<std::uint32_t>(steps_.size()));
  for (const RecipeStep& step : steps_) {
    out->Put(step.op);
    out->Put(step.key);
    out->PutBytes(step.args);
    out->PutBytes(step.inline_data);
    out->PutBytes(std::as_bytes(std::span(step.values)));
  }
}

Result<Recipe> Recipe::Read(ByteReader* in) {
  Recipe recipe;
  const auto count = in->Get<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in->ok(); ++i) {
    RecipeStep step;
    step.op = in->Get<std::uint16_t>();
    step.key = in->Get<std::uint64_t>();
    const std::span<const std::byte> args = in->GetBytes();
    step.args.assign(args.begin(), args.end());
    const std::span<const std::byte> payload = in->GetBytes();
    step.inline_data.assign(payload.begin(), payload.end());
    ByteReader values(in->GetBytes());
    if (values.left() % sizeof(std::uint64_t) != 0) {
      return Corrupt("recipe: values are not whole");
    }
    while (values.left() >= sizeof(std::uint64_t)) {
      step.values.push_back(values.Get<std::uint64_t>());
    }
    recipe.steps_.push_back(std::move(step));
  }
  if (!in->ok()) return Corrupt("recipe ends early");
  return recipe;
}

}  // namespace pos
