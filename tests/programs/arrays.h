// Arrays on the device, made from and compared with vectors on the host.
#ifndef POS_TESTS_PROGRAMS_ARRAYS_H_
#define POS_TESTS_PROGRAMS_ARRAYS_H_

#include <cmath>
#include <vector>

#include "check.h"

// Memory for `count` elements on the device; never freed, programs end.
template <typename T>
T* Allocate(std::size_t count) {
  T* data = nullptr;
  CUDA(cudaMalloc(&data, count * sizeof(T)));
  return data;
}

template <typename T>
void Upload(T* to, const std::vector<T>& from) {
  CUDA(cudaMemcpy(to, from.data(), from.size() * sizeof(T),
                  cudaMemcpyHostToDevice));
}

template <typename T>
T* Upload(const std::vector<T>& from) {
  T* data = Allocate<T>(from.size());
  Upload(data, from);
  return data;
}

template <typename T>
std::vector<T> Download(const T* from, std::size_t count) {
  std::vector<T> to(count);
  CUDA(cudaGetLastError());
  CUDA(cudaMemcpy(to.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
  return to;
}

// Fails where `got` is farther from `want` than `relative` of the larger one
// and `absolute` together; a NaN is farther than anything.
inline void ExpectNear(double got, double want, double relative,
                       double absolute, const char* what, std::size_t index) {
  const double scale = std::fmax(std::fabs(got), std::fabs(want));
  if (!(std::fabs(got - want) <= relative * scale + absolute) &&
      !(std::isinf(want) && got == want)) {
    FAIL("%s[%zu]: %.17g, want %.17g", what, index, got, want);
  }
}

template <typename A, typename B>
void ExpectAllNear(const std::vector<A>& got, const std::vector<B>& want,
                   double relative, double absolute, const char* what) {
  EXPECT(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ExpectNear(static_cast<double>(got[i]), static_cast<double>(want[i]),
               relative, absolute, what, i);
  }
}

template <typename T>
void ExpectSame(const std::vector<T>& got, const std::vector<T>& want,
                const char* what) {
  EXPECT(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &want[i], sizeof(T)) != 0) {
      FAIL("%s[%zu] of %zu differs", what, i, got.size());
    }
  }
}

template <typename T>
void AddAll(Digest& digest, const std::vector<T>& values) {
  digest.Add(values.data(), values.size() * sizeof(T));
}

// In [0, 1), with 24 bits.
inline float Uniform(Random& random) {
  return static_cast<float>(random.Next() & 0xffffff) / 16777216.0f;
}

#endif  // POS_TESTS_PROGRAMS_ARRAYS_H_
