// Managed memory: host and device take turns at the same pointers; a list whose
// nodes lie there; copies from and to it; advice, prefetches, attributes.
#include <vector>

#include "check.h"

struct Node {
  Node* next;
  unsigned value;
};

__global__ void Step(unsigned* data, int n, unsigned factor) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) data[i] = data[i] * factor + i;
}

__global__ void Reverse(Node** head) {
  Node* reversed = nullptr;
  for (Node* at = *head; at != nullptr;) {
    Node* const next = at->next;
    at->next = reversed;
    at->value = at->value * 3 + 1;
    reversed = at;
    at = next;
  }
  *head = reversed;
}

void CheckAttributes(unsigned* data, size_t bytes) {
  cudaPointerAttributes attributes;
  CUDA(cudaPointerGetAttributes(&attributes, data + 5));
  EXPECT(attributes.type == cudaMemoryTypeManaged);
  EXPECT(attributes.devicePointer == data + 5);
  EXPECT(attributes.hostPointer == data + 5);
  cudaMemLocation device{};
  device.type = cudaMemLocationTypeDevice;
  cudaMemLocation host{};
  host.type = cudaMemLocationTypeHost;
  CUDA(cudaMemAdvise(data, bytes, cudaMemAdviseSetReadMostly, device));
  CUDA(cudaMemAdvise(data, bytes / 2, cudaMemAdviseSetPreferredLocation, host));
  CUDA(cudaMemPrefetchAsync(data, bytes, device, 0, nullptr));
  int value = -5;
  CUDA(cudaMemRangeGetAttribute(&value, sizeof(value),
                                cudaMemRangeAttributeReadMostly, data, bytes));
  EXPECT(value == 1);
  CUDA(cudaMemRangeGetAttribute(&value, sizeof(value),
                                cudaMemRangeAttributePreferredLocation, data,
                                bytes / 2));
  EXPECT(value == cudaCpuDeviceId);
  CUDA(cudaMemRangeGetAttribute(&value, sizeof(value),
                                cudaMemRangeAttributePreferredLocation, data,
                                bytes));
  EXPECT(value == cudaInvalidDeviceId);
  CUDA(cudaMemRangeGetAttribute(&value, sizeof(value),
                                cudaMemRangeAttributeLastPrefetchLocation, data,
                                bytes));
  EXPECT(value == 0);
  int accessors[3];
  CUDA(cudaMemAdvise(data, bytes, cudaMemAdviseSetAccessedBy, device));
  CUDA(cudaMemRangeGetAttribute(accessors, sizeof(accessors),
                                cudaMemRangeAttributeAccessedBy, data, bytes));
  EXPECT(accessors[0] == 0 && accessors[1] == cudaInvalidDeviceId);
  CUDA(cudaMemAdvise(data, bytes, cudaMemAdviseUnsetReadMostly, device));
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  const int n = 1 << 14;
  const int kNodes = 300;
  const size_t bytes = n * sizeof(unsigned);
  int supported = 0;
  CUDA(cudaDeviceGetAttribute(&supported, cudaDevAttrManagedMemory, 0));
  EXPECT(supported == 1);
  unsigned *data, *device;
  Node *nodes, **head;
  CUDA(cudaMallocManaged(&data, bytes));
  CUDA(cudaMallocManaged(&nodes, kNodes * sizeof(Node), cudaMemAttachHost));
  CUDA(cudaMallocManaged(&head, sizeof(Node*)));
  CUDA(cudaMalloc(&device, bytes));
  cudaStream_t stream;
  CUDA(cudaStreamCreate(&stream));
  CUDA(cudaStreamAttachMemAsync(stream, nodes));
  CUDA(cudaMemset(data, 0, bytes));
  CUDA(cudaDeviceSynchronize());
  for (int i = 0; i < n; ++i) EXPECT(data[i] == 0);
  CheckAttributes(data, bytes);
  for (int i = 0; i < kNodes; ++i) {
    nodes[i] = {i + 1 < kNodes ? &nodes[i + 1] : nullptr,
                static_cast<unsigned>(i)};
  }
  *head = nodes;
  Digest digest;
  Random random(12);
  std::vector<unsigned> want(n, 0);
  for (int it = 0; it < iterations; ++it) {
    // The host writes, the device works on it, the host reads.
    const int at = static_cast<int>(random.Next() % n);
    data[at] = want[at] = static_cast<unsigned>(random.Next());
    Step<<<n / 256, 256, 0, stream>>>(data, n, 5);
    CUDA(cudaStreamSynchronize(stream));
    for (int i = 0; i < n; ++i) want[i] = want[i] * 5 + i;
    for (int i = 0; i < n; ++i) EXPECT(data[i] == want[i]);
    // From it, to it.
    CUDA(cudaMemcpy(device, data, bytes, cudaMemcpyDefault));
    Step<<<n / 256, 256>>>(device, n, 7);
    CUDA(cudaMemcpy(data, device, bytes, cudaMemcpyDefault));
    for (int i = 0; i < n; ++i) want[i] = want[i] * 7 + i;
    for (int i = 0; i < n; ++i) EXPECT(data[i] == want[i]);
    Reverse<<<1, 1>>>(head);
    CUDA(cudaDeviceSynchronize());
    int count = 0;
    for (const Node* node = *head; node != nullptr; node = node->next) {
      ++count;
      digest.Add(&node->value, sizeof(node->value));
    }
    EXPECT(count == kNodes);
    EXPECT(*head == (it % 2 == 0 ? &nodes[kNodes - 1] : nodes));
    digest.Add(data, bytes);
    // Freed and made again.
    CUDA(cudaFree(device));
    CUDA(cudaMalloc(&device, bytes));
    unsigned* extra;
    CUDA(cudaMallocManaged(&extra, 100000));
    CUDA(cudaMemset(extra, it, 100000));
    CUDA(cudaDeviceSynchronize());
    EXPECT(extra[24999] == static_cast<unsigned>(it % 256) * 0x01010101u);
    CUDA(cudaFree(extra));
    Progress(it, iterations);
  }
  CUDA(cudaStreamDestroy(stream));
  CUDA(cudaFree(head));
  CUDA(cudaFree(nodes));
  CUDA(cudaFree(data));
  CUDA(cudaFree(device));
  return digest.Pass();
}
