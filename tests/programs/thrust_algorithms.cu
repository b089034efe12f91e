// Thrust: sort, sort_by_key, reduce, transform, scans, unique.
#include <thrust/device_vector.h>
#include <thrust/functional.h>
#include <thrust/reduce.h>
#include <thrust/scan.h>
#include <thrust/sort.h>
#include <thrust/transform.h>
#include <thrust/unique.h>

#include <algorithm>
#include <numeric>

#include "arrays.h"

struct Mix {
  unsigned seed;
  __host__ __device__ unsigned operator()(unsigned x) const {
    x ^= x >> 15;
    x = x * 2246822519u + seed;
    return (x ^ (x >> 13)) % 500;
  }
};

template <typename T>
std::vector<T> ToHost(const thrust::device_vector<T>& from) {
  std::vector<T> to(from.size());
  thrust::copy(from.begin(), from.end(), to.begin());
  return to;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 3000;
  std::vector<unsigned> want(n);
  for (int i = 0; i < n; ++i) want[i] = i * 7919u;
  thrust::device_vector<unsigned> data(want.begin(), want.end());
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    const Mix mix{static_cast<unsigned>(it) * 77u + 1};
    // The data goes on from iteration to iteration.
    thrust::transform(data.begin(), data.end(), data.begin(), mix);
    std::transform(want.begin(), want.end(), want.begin(), mix);
    ExpectSame(ToHost(data), want, "transform");

    EXPECT(thrust::reduce(data.begin(), data.end(), 0u) ==
           std::accumulate(want.begin(), want.end(), 0u));
    EXPECT(thrust::reduce(data.begin(), data.end(), 0u,
                          thrust::maximum<unsigned>()) ==
           *std::max_element(want.begin(), want.end()));

    thrust::device_vector<unsigned> scanned(n);
    thrust::inclusive_scan(data.begin(), data.end(), scanned.begin());
    std::vector<unsigned> sums(n);
    std::partial_sum(want.begin(), want.end(), sums.begin());
    ExpectSame(ToHost(scanned), sums, "inclusive_scan");

    thrust::device_vector<unsigned> sorted = data;
    thrust::sort(sorted.begin(), sorted.end());
    std::vector<unsigned> sorted_want = want;
    std::sort(sorted_want.begin(), sorted_want.end());
    ExpectSame(ToHost(sorted), sorted_want, "sort");

    const auto end = thrust::unique(sorted.begin(), sorted.end());
    sorted.resize(end - sorted.begin());
    sorted_want.erase(std::unique(sorted_want.begin(), sorted_want.end()),
                      sorted_want.end());
    ExpectSame(ToHost(sorted), sorted_want, "unique");

    thrust::device_vector<unsigned> keys = data;
    std::vector<unsigned> order(n);
    std::iota(order.begin(), order.end(), 0u);
    thrust::device_vector<unsigned> values(order.begin(), order.end());
    thrust::stable_sort_by_key(keys.begin(), keys.end(), values.begin());
    std::stable_sort(order.begin(), order.end(), [&](unsigned a, unsigned b) {
      return want[a] < want[b];
    });
    ExpectSame(ToHost(values), order, "stable_sort_by_key");
    AddAll(digest, order);
    AddAll(digest, sums);
    Progress(it, iterations);
  }
  return digest.Pass();
}
