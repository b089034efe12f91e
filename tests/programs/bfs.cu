// Breadth-first search: frontiers in queues filled by atomics, the distances
// against a search on the processor.
#include <algorithm>

#include "arrays.h"

__global__ void Expand(const int* rows, const int* edges, const int* frontier,
                       int frontier_size, int* next, int* next_size,
                       int* distance, int depth) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= frontier_size) return;
  const int node = frontier[t];
  for (int k = rows[node]; k < rows[node + 1]; ++k) {
    const int to = edges[k];
    if (atomicCAS(&distance[to], -1, depth) == -1) {
      next[atomicAdd(next_size, 1)] = to;
    }
  }
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 3000;
  Random random(43);
  std::vector<std::vector<int>> lists(n);
  for (int i = 0; i < 2 * n; ++i) {  // mostly near each other: many levels
    const int a = random.Next() % n;
    const int b = i % 40 ? std::min<int>(n - 1, a + random.Next() % 120)
                         : random.Next() % n;
    lists[a].push_back(b);
    lists[b].push_back(a);
  }
  std::vector<int> rows{0}, edges;
  for (const auto& list : lists) {
    edges.insert(edges.end(), list.begin(), list.end());
    rows.push_back(static_cast<int>(edges.size()));
  }
  const int* dr = Upload(rows);
  const int* de = Upload(edges);
  int* frontier = Allocate<int>(n);
  int* next = Allocate<int>(n);
  int* size = Allocate<int>(1);
  int* distance = Allocate<int>(n);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    const int start = static_cast<int>(random.Next() % n);
    CUDA(cudaMemset(distance, 0xff, n * sizeof(int)));
    CUDA(cudaMemset(distance + start, 0, sizeof(int)));
    CUDA(cudaMemcpy(frontier, &start, sizeof(int), cudaMemcpyHostToDevice));
    for (int count = 1, depth = 1; count > 0; ++depth) {
      CUDA(cudaMemset(size, 0, sizeof(int)));
      Expand<<<(count + 63) / 64, 64>>>(dr, de, frontier, count, next, size,
                                        distance, depth);
      CUDA(cudaMemcpy(&count, size, sizeof(int), cudaMemcpyDeviceToHost));
      std::swap(frontier, next);
    }
    std::vector<int> want(n, -1), queue{start};
    want[start] = 0;
    for (size_t at = 0; at < queue.size(); ++at) {
      for (int to : lists[queue[at]]) {
        if (want[to] >= 0) continue;
        want[to] = want[queue[at]] + 1;
        queue.push_back(to);
      }
    }
    const auto got = Download(distance, n);
    ExpectSame(got, want, "distance");
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
