// Linked structures in memory that kernels allocate: binary trees that grow
// from iteration to iteration, lose nodes, and are read by later kernels.
#include <algorithm>
#include <set>

#include "arrays.h"

struct Node {
  int key;
  Node* left;
  Node* right;
};

// Each thread owns one tree.
__global__ void Insert(Node** roots, const int* keys, int per_tree,
                       int* failed) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  for (int k = 0; k < per_tree; ++k) {
    const int key = keys[t * per_tree + k];
    Node** at = &roots[t];
    while (*at != nullptr && (*at)->key != key) {
      at = key < (*at)->key ? &(*at)->left : &(*at)->right;
    }
    if (*at != nullptr) continue;
    Node* node = static_cast<Node*>(malloc(sizeof(Node)));
    if (node == nullptr) {
      atomicAdd(failed, 1);
      continue;
    }
    *node = Node{key, nullptr, nullptr};
    *at = node;
  }
}

__global__ void RemoveSmallest(Node** roots) {
  Node** at = &roots[blockIdx.x * blockDim.x + threadIdx.x];
  if (*at == nullptr) return;
  while ((*at)->left != nullptr) at = &(*at)->left;
  Node* gone = *at;
  *at = gone->right;
  free(gone);
}

// The keys in order: a walk with a stack that is allocated, too.
__global__ void Flatten(Node* const* roots, int* out, int* sizes, int most) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  Node** stack = new Node*[most];
  int depth = 0, count = 0;
  for (Node* node = roots[t]; node != nullptr || depth > 0;) {
    while (node != nullptr) {
      stack[depth++] = node;
      node = node->left;
    }
    node = stack[--depth];
    if (count < most) out[t * most + count++] = node->key;
    node = node->right;
  }
  sizes[t] = count;
  delete[] stack;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int trees = 64, per_tree = 8, most = 64;
  Node** roots = Allocate<Node*>(trees);
  CUDA(cudaMemset(roots, 0, trees * sizeof(Node*)));
  int* keys = Allocate<int>(trees * per_tree);
  int* out = Allocate<int>(trees * most);
  int* sizes = Allocate<int>(trees);
  int* failed = Allocate<int>(1);
  CUDA(cudaMemset(failed, 0, sizeof(int)));
  std::vector<std::set<int>> want(trees);
  Digest digest;
  Random random(79);
  for (int it = 0; it < iterations; ++it) {
    std::vector<int> host(trees * per_tree);
    for (int& k : host) k = random.Next() % 60;
    Upload(keys, host);
    Insert<<<2, trees / 2>>>(roots, keys, per_tree, failed);
    for (int k = 0; k < 4; ++k) RemoveSmallest<<<2, trees / 2>>>(roots);
    Flatten<<<2, trees / 2>>>(roots, out, sizes, most);
    EXPECT(Download(failed, 1)[0] == 0);
    const auto got = Download(out, trees * most);
    const auto got_sizes = Download(sizes, trees);
    for (int t = 0; t < trees; ++t) {
      want[t].insert(&host[t * per_tree], &host[t * per_tree] + per_tree);
      for (int k = 0; k < 4 && !want[t].empty(); ++k) {
        want[t].erase(want[t].begin());
      }
      EXPECT(got_sizes[t] == static_cast<int>(want[t].size()));
      EXPECT(std::equal(want[t].begin(), want[t].end(), &got[t * most]));
      digest.Add(&got[t * most], got_sizes[t] * sizeof(int));
    }
    Progress(it, iterations);
  }
  return digest.Pass();
}
