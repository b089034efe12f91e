// CUB's device-wide algorithms: radix sort, scan (blocks look back at their
// predecessors while those still run), reduction, selection.
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_reduce.cuh>
#include <cub/device/device_scan.cuh>
#include <cub/device/device_select.cuh>
#include <numeric>

#include "arrays.h"

// Asks how much temporary memory a call needs, then makes it.
template <typename F>
void WithScratch(F call) {
  size_t bytes = 0;
  CUDA(call(nullptr, bytes));
  void* scratch;
  CUDA(cudaMalloc(&scratch, bytes));
  CUDA(call(scratch, bytes));
  CUDA(cudaFree(scratch));
}

struct IsOdd {
  __host__ __device__ bool operator()(int x) const { return x % 2 != 0; }
};

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 20000;
  int* in = Allocate<int>(n);
  int* out = Allocate<int>(n);
  int* one = Allocate<int>(1);
  Digest digest;
  Random random(23);
  for (int it = 0; it < iterations; ++it) {
    std::vector<int> host(n), want(n);
    for (int& x : host) x = static_cast<int>(random.Next() % 2000) - 1000;
    Upload(in, host);

    WithScratch([&](void* scratch, size_t& bytes) {
      return cub::DeviceScan::InclusiveSum(scratch, bytes, in, out, n);
    });
    std::partial_sum(host.begin(), host.end(), want.begin());
    ExpectSame(Download(out, n), want, "scan");
    AddAll(digest, want);

    WithScratch([&](void* scratch, size_t& bytes) {
      return cub::DeviceReduce::Sum(scratch, bytes, in, one, n);
    });
    EXPECT(Download(one, 1)[0] == want[n - 1]);

    WithScratch([&](void* scratch, size_t& bytes) {
      return cub::DeviceSelect::If(scratch, bytes, in, out, one, n, IsOdd());
    });
    std::vector<int> odd;
    std::copy_if(host.begin(), host.end(), std::back_inserter(odd), IsOdd());
    EXPECT(Download(one, 1)[0] == static_cast<int>(odd.size()));
    ExpectSame(Download(out, odd.size()), odd, "select");
    AddAll(digest, odd);

    WithScratch([&](void* scratch, size_t& bytes) {
      return cub::DeviceRadixSort::SortKeys(scratch, bytes, in, out, n);
    });
    want = host;
    std::sort(want.begin(), want.end());
    ExpectSame(Download(out, n), want, "sort");
    AddAll(digest, want);
    Progress(it, iterations);
  }
  return digest.Pass();
}
