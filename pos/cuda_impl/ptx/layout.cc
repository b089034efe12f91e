#include "pos/cuda_impl/ptx/layout.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <utility>

namespace pos::ptx {
namespace {

using Flow = LowInst::Flow;
using Graph = std::vector<std::vector<std::uint32_t>>;

// Loops nested deeper than any program's keep the order of the text, so that
// hostile graphs cost linear time.
constexpr int kMaxNesting = 64;

void AddSuccessor(BasicBlock* block, std::uint32_t to) {
  auto& all = block->successors;
  if (std::find(all.begin(), all.end(), to) == all.end()) all.push_back(to);
}

class Layout {
 public:
  explicit Layout(const Graph& graph)
      : graph_(graph),
        region_(graph.size(), 0),
        index_(graph.size(), 0),
        low_(graph.size(), 0),
        component_(graph.size(), 0),
        on_stack_(graph.size(), false) {}

  std::vector<std::uint32_t> Run();

 private:
  // A set of blocks still to be ordered; edges to `head` do not count.
  struct Region {
    std::vector<std::uint32_t> nodes;
    std::uint32_t head = ast::kNone;
    int depth = 0;
  };

  [[nodiscard]] std::vector<std::uint32_t> Reachable() const;
  [[nodiscard]] bool Counts(std::uint32_t to, const Region& region) const {
    return region_[to] == round_ && to != region.head;
  }
  void FindComponents(const Region& region);
  void Visit(std::uint32_t root, const Region& region);
  void Expand(const Region& region);
  std::vector<std::uint32_t> SortComponents(const Region& region);
  [[nodiscard]] std::uint32_t HeadOf(
      const std::vector<std::uint32_t>& nodes) const;

  const Graph& graph_;
  std::vector<std::uint32_t> order_;
  std::vector<Region> work_;  // last one next; single nodes have depth -1
  std::uint32_t round_ = 0;
  std::vector<std::uint32_t> region_;  // round in which a node takes part
  // Tarjan's algorithm.
  std::vector<std::uint32_t> index_;
  std::vector<std::uint32_t> low_;
  std::vector<std::uint32_t> component_;
  std::vector<bool> on_stack_;
  std::vector<std::uint32_t> stack_;
  std::uint32_t next_index_ = 0;
  std::vector<std::vector<std::uint32_t>> components_;
  std::vector<bool> entered_;  // from outside of its component
};

std::vector<std::uint32_t> Layout::Reachable() const {
  std::vector<bool> seen(graph_.size(), false);
  std::vector<std::uint32_t> found{0};
  seen[0] = true;
  for (std::size_t i = 0; i < found.size(); ++i) {
    for (const std::uint32_t to : graph_[found[i]]) {
      if (!seen[to]) {
        seen[to] = true;
        found.push_back(to);
      }
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

// One strongly connected component after the other, without recursion.
void Layout::Visit(std::uint32_t root, const Region& region) {
  std::vector<std::pair<std::uint32_t, std::size_t>> open{{root, 0}};
  const auto enter = [this](std::uint32_t node) {
    index_[node] = low_[node] = ++next_index_;
    stack_.push_back(node);
    on_stack_[node] = true;
  };
  enter(root);
  while (!open.empty()) {
    const std::uint32_t node = open.back().first;
    if (open.back().second < graph_[node].size()) {
      const std::uint32_t to = graph_[node][open.back().second++];
      if (!Counts(to, region)) continue;
      if (index_[to] == 0) {
        enter(to);
        open.emplace_back(to, 0);
      } else if (on_stack_[to]) {
        low_[node] = std::min(low_[node], index_[to]);
      }
      continue;
    }
    open.pop_back();
    if (!open.empty()) {
      const std::uint32_t up = open.back().first;
      low_[up] = std::min(low_[up], low_[node]);
    }
    if (low_[node] != index_[node]) continue;
    components_.emplace_back();
    std::uint32_t member = ast::kNone;
    do {
      member = stack_.back();
      stack_.pop_back();
      on_stack_[member] = false;
      component_[member] = static_cast<std::uint32_t>(components_.size() - 1);
      components_.back().push_back(member);
    } while (member != node);
  }
}

void Layout::FindComponents(const Region& region) {
  components_.clear();
  next_index_ = 0;
  for (const std::uint32_t node : region.nodes) index_[node] = 0;
  for (const std::uint32_t node : region.nodes) {
    if (index_[node] == 0) Visit(node, region);
  }
}

// Components in topological order; of those that could come next, the one with
// the first block in the text.
std::vector<std::uint32_t> Layout::SortComponents(const Region& region) {
  std::vector<std::uint32_t> waits(components_.size(), 0);
  std::vector<std::uint32_t> first(components_.size());
  for (std::uint32_t c = 0; c < components_.size(); ++c) {
    first[c] = *std::min_element(components_[c].begin(), components_[c].end());
    for (const std::uint32_t node : components_[c]) {
      for (const std::uint32_t to : graph_[node]) {
        if (Counts(to, region) && component_[to] != c) ++waits[component_[to]];
      }
    }
  }
  using Item = std::pair<std::uint32_t, std::uint32_t>;
  std::priority_queue<Item, std::vector<Item>, std::greater<>> ready;
  for (std::uint32_t c = 0; c < components_.size(); ++c) {
    if (waits[c] == 0) ready.emplace(first[c], c);
  }
  std::vector<std::uint32_t> sorted;
  while (!ready.empty()) {
    const std::uint32_t c = ready.top().second;
    ready.pop();
    sorted.push_back(c);
    for (const std::uint32_t node : components_[c]) {
      for (const std::uint32_t to : graph_[node]) {
        if (!Counts(to, region) || component_[to] == c) continue;
        if (--waits[component_[to]] == 0) {
          ready.emplace(first[component_[to]], component_[to]);
        }
      }
    }
  }
  return sorted;
}

// Where a loop is entered: a member with a predecessor outside of it.
std::uint32_t Layout::HeadOf(const std::vector<std::uint32_t>& nodes) const {
  std::uint32_t head = ast::kNone;
  for (const std::uint32_t node : nodes) {
    if (entered_[node] && node < head) head = node;
  }
  return head != ast::kNone ? head
                            : *std::min_element(nodes.begin(), nodes.end());
}

void Layout::Expand(const Region& region) {
  ++round_;
  for (const std::uint32_t node : region.nodes) region_[node] = round_;
  FindComponents(region);
  // Nodes entered from another component, or from the head that was taken out.
  for (const std::uint32_t node : region.nodes) entered_[node] = false;
  const auto mark = [&](std::uint32_t from) {
    for (const std::uint32_t to : graph_[from]) {
      if (Counts(to, region) &&
          (from == region.head || component_[to] != component_[from])) {
        entered_[to] = true;
      }
    }
  };
  for (const std::uint32_t node : region.nodes) mark(node);
  if (region.head != ast::kNone) mark(region.head);
  const std::vector<std::uint32_t> sorted = SortComponents(region);
  for (auto c = sorted.rbegin(); c != sorted.rend(); ++c) {
    std::vector<std::uint32_t>& nodes = components_[*c];
    if (nodes.size() == 1) {
      work_.push_back({std::move(nodes), ast::kNone, -1});
      continue;
    }
    const std::uint32_t head = HeadOf(nodes);
    std::sort(nodes.begin(), nodes.end());
    Region rest;
    rest.head = head;
    rest.depth = region.depth + 1;
    for (const std::uint32_t node : nodes) {
      if (node != head) rest.nodes.push_back(node);
    }
    work_.push_back(std::move(rest));
    work_.push_back({{head}, ast::kNone, -1});
  }
}

std::vector<std::uint32_t> Layout::Run() {
  entered_.assign(graph_.size(), false);
  Region all;
  all.nodes = Reachable();
  work_.push_back(std::move(all));
  while (!work_.empty()) {
    const Region region = std::move(work_.back());
    work_.pop_back();
    if (region.depth < 0 || region.depth > kMaxNesting) {
      order_.insert(order_.end(), region.nodes.begin(), region.nodes.end());
    } else {
      Expand(region);
    }
  }
  // Block 0 has no predecessor that is not in a loop with it, so it is first
  // but for graphs in which the beginning itself is a loop's middle.
  const auto first = std::find(order_.begin(), order_.end(), 0u);
  std::rotate(order_.begin(), first, first + 1);
  return std::move(order_);
}

}  // namespace

std::vector<std::uint32_t> BlocksOfLabels(
    const LowFunction& function, const std::vector<BasicBlock>& blocks) {
  std::vector<std::uint32_t> block_of(function.labels.size(), ast::kNone);
  for (std::size_t i = 0; i < function.labels.size(); ++i) {
    const auto at =
        std::lower_bound(blocks.begin(), blocks.end(), function.labels[i],
                         [](const BasicBlock& block, std::uint32_t begin) {
                           return block.begin < begin;
                         });
    if (at != blocks.end() && at->begin == function.labels[i]) {
      block_of[i] = static_cast<std::uint32_t>(at - blocks.begin());
    }
  }
  return block_of;
}

std::vector<BasicBlock> FindBlocks(const LowFunction& function) {
  const auto size = static_cast<std::uint32_t>(function.code.size());
  std::vector<bool> leads(size + 1, false);
  leads[0] = true;
  for (const std::uint32_t label : function.labels) {
    if (label < size) leads[label] = true;
  }
  for (std::uint32_t i = 0; i < size; ++i) {
    if (function.code[i].flow != Flow::kNext) leads[i + 1] = true;
  }
  std::vector<BasicBlock> blocks;
  for (std::uint32_t i = 0; i < size; ++i) {
    if (leads[i]) {
      blocks.emplace_back();
      blocks.back().begin = i;
    }
    blocks.back().end = i + 1;
  }
  const std::vector<std::uint32_t> at = BlocksOfLabels(function, blocks);
  for (std::uint32_t b = 0; b < blocks.size(); ++b) {
    BasicBlock& block = blocks[b];
    const LowInst& last = function.code[block.end - 1];
    const bool falls = last.flow == Flow::kNext || last.flow == Flow::kResume ||
                       last.flow == Flow::kBranch;
    if (falls && b + 1 < blocks.size()) {
      block.fall = b + 1;
      AddSuccessor(&block, b + 1);
    }
    if (last.flow == Flow::kJump || last.flow == Flow::kBranch) {
      AddSuccessor(&block, at[last.target]);
    }
    if (last.flow == Flow::kSwitch) {
      std::vector<std::uint32_t>& all = block.successors;
      for (const std::uint32_t label : function.tables[last.target]) {
        all.push_back(at[label]);
      }
      std::sort(all.begin(), all.end());
      all.erase(std::unique(all.begin(), all.end()), all.end());
    }
  }
  for (const BasicBlock& block : blocks) {
    for (const std::uint32_t to : block.successors) ++blocks[to].predecessors;
  }
  return blocks;
}

std::vector<std::uint32_t> LayOut(const Graph& successors) {
  return Layout(successors).Run();
}

}  // namespace pos::ptx
