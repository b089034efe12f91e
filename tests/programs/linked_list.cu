// Linked structures in device memory: nodes hold device pointers to each other,
// across allocations, built on the device and on the host. The pointers must
// mean the same as long as the program runs.
#include <vector>

#include "check.h"

struct Node {
  Node* next;
  int* payload;
  int key;
};

__global__ void Build(Node* nodes, int* payloads, const int* order, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  nodes[order[i]].next = i + 1 < n ? &nodes[order[i + 1]] : nullptr;
  nodes[order[i]].payload = &payloads[order[i]];
  nodes[order[i]].key = i;
}

__global__ void Walk(const Node* head, long long* sum, int* length) {
  long long total = 0;
  int count = 0;
  for (const Node* node = head; node != nullptr; node = node->next) {
    total += static_cast<long long>(node->key) * *node->payload;
    *node->payload += 1;  // changes what the next walk sees
    ++count;
  }
  *sum = total;
  *length = count;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 6);
  const int n = 3000;
  std::vector<int> order(n), payloads(n);
  Random random(77);
  for (int i = 0; i < n; ++i) {
    order[i] = i;
    payloads[i] = static_cast<int>(random.Next() % 1000);
  }
  for (int i = n - 1; i > 0; --i) {
    const int j = static_cast<int>(random.Next() % (i + 1));
    const int t = order[i];
    order[i] = order[j];
    order[j] = t;
  }
  Node* nodes;
  int *d_payloads, *d_order, *d_length;
  long long* d_sum;
  CUDA(cudaMalloc(&nodes, n * sizeof(Node)));
  CUDA(cudaMalloc(&d_payloads, n * sizeof(int)));
  CUDA(cudaMalloc(&d_order, n * sizeof(int)));
  CUDA(cudaMalloc(&d_sum, sizeof(long long)));
  CUDA(cudaMalloc(&d_length, sizeof(int)));
  CUDA(cudaMemcpy(d_payloads, payloads.data(), n * sizeof(int),
                  cudaMemcpyHostToDevice));
  CUDA(cudaMemcpy(d_order, order.data(), n * sizeof(int),
                  cudaMemcpyHostToDevice));
  Build<<<(n + 127) / 128, 128>>>(nodes, d_payloads, d_order, n);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Walk<<<1, 1>>>(nodes + order[0], d_sum, d_length);
    long long sum, want = 0;
    int length;
    CUDA(cudaMemcpy(&sum, d_sum, sizeof(sum), cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(&length, d_length, sizeof(length), cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; ++i) {
      want += static_cast<long long>(i) * payloads[order[i]]++;
    }
    EXPECT(sum == want && length == n);
    // The host follows a pointer that it finds in device memory.
    Node first, second;
    CUDA(cudaMemcpy(&first, nodes + order[0], sizeof(Node),
                    cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(&second, first.next, sizeof(Node), cudaMemcpyDeviceToHost));
    EXPECT(first.next == nodes + order[1] && second.key == 1);
    digest.AddValue(sum);
    Progress(it, iterations);
  }
  return digest.Pass();
}
