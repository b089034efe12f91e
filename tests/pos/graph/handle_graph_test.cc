#include "pos/graph/handle_graph.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "tests/support/random.h"

namespace pos {
namespace {

constexpr HandleKind kA = 1;
constexpr HandleKind kB = 2;

std::vector<std::byte> Saved(const HandleGraph& graph) {
  ByteWriter out;
  graph.Save(&out);
  return out.Take();
}

Status LoadInto(HandleGraph* graph, std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  POS_RETURN_IF_ERROR(graph->Load(&in));
  return in.left() == 0 ? Status() : Internal("bytes are left");
}

TEST(HandleGraph, IdNamesKindAndNeverIsZero) {
  HandleGraph graph;
  Handle* const a = graph.Create(kA);
  Handle* const b = graph.Create(kB);
  EXPECT_NE(a->id, 0u);
  EXPECT_NE(a->id, b->id);
  EXPECT_EQ(HandleGraph::KindOf(a->id), kA);
  EXPECT_EQ(graph.Resolve(kA, a->id), a);
  EXPECT_EQ(graph.Resolve(kB, a->id), nullptr) << "of another kind";
  EXPECT_EQ(graph.Resolve(kA, 0), nullptr);
  EXPECT_EQ(graph.Resolve(kA, a->id + 1), nullptr);
  EXPECT_EQ(graph.Resolve(kA, a->id ^ (1ull << 40)), nullptr);
  EXPECT_EQ(graph.Resolve(kA, ~0ull), nullptr);
}

TEST(HandleGraph, StaleIdDoesNotResolveThoughItsPlaceIsUsedAgain) {
  HandleGraph graph;
  std::set<HandleId> seen;
  HandleId last = 0;
  for (int i = 0; i < 100000; ++i) {
    Handle* const handle = graph.Create(kA);
    ASSERT_TRUE(seen.insert(handle->id).second);
    if (last != 0) {
      ASSERT_EQ(graph.Resolve(kA, last), nullptr);
    }
    last = handle->id;
    graph.Kill(handle);
    ASSERT_EQ(graph.Resolve(kA, last), nullptr);
    ASSERT_EQ(graph.Find(last), handle) << "dead, not gone";
    graph.Release(handle);
    ASSERT_EQ(graph.Find(last), nullptr);
  }
  EXPECT_EQ(graph.size(), 0u);
}

TEST(HandleGraph, ReleaseOfACreationThatFailedAlsoKills) {
  HandleGraph graph;
  Handle* const parent = graph.Create(kA);
  Handle* const child = graph.Create(kB, parent);
  graph.Release(parent);  // its child keeps it; the client may not name it
  EXPECT_EQ(graph.Resolve(kA, parent->id), nullptr);
  EXPECT_EQ(graph.size(), 2u);
  graph.Release(child);
  EXPECT_EQ(graph.size(), 0u);
}

TEST(HandleGraph, ParentsGoAfterTheirLastChild) {
  HandleGraph graph;
  Handle* const top = graph.Create(kA);
  Handle* const left = graph.Create(kA, top);
  Handle* const right = graph.Create(kA, top);
  Handle* const leaf = graph.Create(kB, left, right);
  const HandleId ids[] = {top->id, left->id, right->id, leaf->id};
  graph.Release(top);
  graph.Release(left);
  EXPECT_EQ(graph.size(), 4u);
  graph.Release(leaf);
  EXPECT_EQ(graph.Find(ids[3]), nullptr);
  EXPECT_EQ(graph.Find(ids[1]), nullptr);
  EXPECT_NE(graph.Find(ids[2]), nullptr) << "nobody released it";
  EXPECT_NE(graph.Find(ids[0]), nullptr) << "it has a child";
  graph.Release(right);
  EXPECT_EQ(graph.size(), 0u);
}

// Random creations and releases against a plain model, saved and loaded now
// and then. The model: a handle is there while it is not released or has a
// child that is there.
class GraphModel : public ::testing::TestWithParam<std::uint64_t> {
 protected:
  struct Node {
    HandleId id;
    std::vector<std::size_t> parents;
    bool alive = true;
    bool released = false;
    std::uint64_t word = 0;
  };
  [[nodiscard]] bool There(std::size_t i) const {
    if (!nodes_[i].released) return true;
    for (std::size_t k = i + 1; k < nodes_.size(); ++k) {
      for (const std::size_t p : nodes_[k].parents) {
        if (p == i && There(k)) return true;
      }
    }
    return false;
  }
  void Check() {
    std::size_t count = 0;
    std::vector<HandleId> order;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      Handle* const handle = graph_->Find(nodes_[i].id);
      ASSERT_EQ(handle != nullptr, There(i)) << i;
      if (handle == nullptr) continue;
      ++count;
      order.push_back(nodes_[i].id);
      ASSERT_EQ(handle->alive, nodes_[i].alive);
      ASSERT_EQ(handle->parser_word, nodes_[i].word);
      for (std::size_t k = 0; k < 2; ++k) {
        const HandleId parent =
            k < nodes_[i].parents.size() ? nodes_[nodes_[i].parents[k]].id : 0;
        ASSERT_EQ(handle->parents[k] == nullptr ? 0 : handle->parents[k]->id,
                  parent);
      }
    }
    ASSERT_EQ(graph_->size(), count);
    std::vector<HandleId> visited;
    graph_->ForEach([&](Handle* h) { visited.push_back(h->id); });
    ASSERT_EQ(visited, order) << "not in order of creation";
  }

  std::unique_ptr<HandleGraph> graph_ = std::make_unique<HandleGraph>();
  std::vector<Node> nodes_;
};

TEST_P(GraphModel, AgreesWithThePlainModelAcrossSavesAndLoads) {
  Random random(GetParam());
  for (int step = 0; step < 120; ++step) {
    const std::uint32_t what = random.Below(5);
    const auto any = [&] {
      return random.Below(static_cast<std::uint32_t>(nodes_.size()));
    };
    if (what < 3 || nodes_.empty()) {
      Node node;
      for (int k = 0; k < 2 && !nodes_.empty(); ++k) {
        const std::size_t p = any();
        if (random.Below(2) == 0 && nodes_[p].alive && There(p)) {
          node.parents.push_back(p);
        }
      }
      Handle* parents[2] = {};
      for (std::size_t k = 0; k < node.parents.size(); ++k) {
        parents[k] = graph_->Find(nodes_[node.parents[k]].id);
      }
      Handle* const handle = graph_->Create(kA, parents[0], parents[1]);
      ASSERT_NE(handle, nullptr);
      handle->parser_word = node.word = random.Next();
      node.id = handle->id;
      nodes_.push_back(node);
    } else {
      Node& node = nodes_[any()];
      Handle* const handle = graph_->Find(node.id);
      if (handle == nullptr || node.released) continue;
      if (what == 3) {
        graph_->Kill(handle);
        node.alive = false;
      } else {
        graph_->Release(handle);
        node.released = true;
        node.alive = false;
      }
    }
    if (step % 10 == 0) {
      const std::vector<std::byte> bytes = Saved(*graph_);
      graph_ = std::make_unique<HandleGraph>();
      ASSERT_TRUE(LoadInto(graph_.get(), bytes).ok());
      ASSERT_EQ(Saved(*graph_), bytes);
    }
    ASSERT_NO_FATAL_FAILURE(Check());
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, GraphModel,
                         ::testing::Range<std::uint64_t>(1, 13));

// A place freed before the save keeps its generation: an id that a client still
// remembers does not come to life again.
TEST(HandleGraph, GenerationsOfFreePlacesSurviveALoad) {
  HandleGraph graph;
  std::vector<HandleId> stale;
  for (int i = 0; i < 10; ++i) {
    Handle* const handle = graph.Create(kA);
    stale.push_back(handle->id);
    graph.Release(handle);
  }
  HandleGraph loaded;
  ASSERT_TRUE(LoadInto(&loaded, Saved(graph)).ok());
  for (int i = 0; i < 10; ++i) {
    const HandleId id = loaded.Create(kA)->id;
    for (const HandleId old : stale) ASSERT_NE(id, old);
  }
}

class HostileGraph : public ::testing::Test {
 protected:
  HostileGraph() {
    Handle* const top = graph_.Create(kA);
    Handle* const gone = graph_.Create(kA);
    Handle* const child = graph_.Create(kB, top, gone);
    child->materialized = true;
    graph_.Create(kB, top);
    graph_.Release(graph_.Create(kA));
    graph_.Release(gone);
    bytes_ = Saved(graph_);
  }
  HandleGraph graph_;
  std::vector<std::byte> bytes_;
};

TEST_F(HostileGraph, EveryCutImageIsRefused) {
  for (std::size_t keep = 0; keep < bytes_.size(); ++keep) {
    HandleGraph graph;
    EXPECT_FALSE(LoadInto(&graph, std::span(bytes_).first(keep)).ok()) << keep;
  }
}

// Every byte changed to every value: refused, or a graph whose invariants hold.
TEST_F(HostileGraph, EveryChangedByteGivesAnErrorOrASoundGraph) {
  std::size_t accepted = 0;
  for (std::size_t at = 0; at < bytes_.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::vector<std::byte> bytes = bytes_;
      bytes[at] = static_cast<std::byte>(value);
      HandleGraph graph;
      if (!LoadInto(&graph, bytes).ok()) continue;
      ++accepted;
      std::set<HandleId> before;
      std::vector<Handle*> handles;
      graph.ForEach([&](Handle* h) {
        EXPECT_TRUE(before.insert(h->id).second);
        handles.push_back(h);
      });
      ASSERT_EQ(before.size(), graph.size());
      for (int i = 0; i < 3; ++i) {
        Handle* const made = graph.Create(kA);
        ASSERT_EQ(before.count(made->id), 0u);
        for (const Handle* h : handles) ASSERT_NE(h, made);
        ASSERT_EQ(graph.Find(made->id), made);
        handles.push_back(made);
      }
      // Everything can be taken down, children first or last.
      for (Handle* h : handles) {
        if (!h->released) graph.Release(h);
      }
      ASSERT_EQ(graph.size(), 0u) << "at " << at << " value " << value;
    }
  }
  EXPECT_GT(accepted, 256u);
}

TEST_F(HostileGraph, ManyPlacesInAFewBytesAreRefused) {
  ByteWriter out;
  out.Put<std::uint64_t>(1);
  out.Put<std::uint32_t>(1u << 24);
  out.Put<std::uint64_t>(0);
  HandleGraph graph;
  EXPECT_EQ(LoadInto(&graph, out.bytes()).code(), Code::kCorrupt);
}

}  // namespace
}  // namespace pos
