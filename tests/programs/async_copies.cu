// Copies from global to shared memory that go on while threads compute:
// cooperative groups' memcpy_async, a two-stage pipeline, a barrier that counts
// bytes, and the plain primitives.
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cuda_pipeline.h>

#include <cuda/barrier>
#include <cuda/pipeline>

#include "arrays.h"

// Barriers in shared memory are initialized by the kernels.
#pragma nv_diag_suppress static_var_with_dynamic_init

namespace cg = cooperative_groups;

constexpr int kBlock = 64, kTiles = 6, kTile = kBlock;

__device__ int Work(int x, int t) { return x * 3 + t; }

__global__ void WithGroups(const int* in, int* out) {
  __shared__ alignas(16) int tile[kTile];
  const auto block = cg::this_thread_block();
  int sum = 0;
  for (int t = 0; t < kTiles; ++t) {
    cg::memcpy_async(block, tile, in + t * kTile, sizeof(tile));
    cg::wait(block);
    sum += Work(tile[kTile - 1 - threadIdx.x], t);
    block.sync();
  }
  out[threadIdx.x] = sum;
}

__global__ void WithPipeline(const int* in, int* out) {
  __shared__ alignas(16) int tile[2][kTile];
  const auto block = cg::this_thread_block();
  __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, 2> state;
  auto pipeline = cuda::make_pipeline(block, &state);
  const auto fetch = [&](int t) {
    pipeline.producer_acquire();
    cuda::memcpy_async(block, tile[t % 2], in + t * kTile,
                       cuda::aligned_size_t<16>(sizeof(tile[0])), pipeline);
    pipeline.producer_commit();
  };
  fetch(0);
  int sum = 0;
  for (int t = 0; t < kTiles; ++t) {
    if (t + 1 < kTiles) fetch(t + 1);
    pipeline.consumer_wait();
    sum += Work(tile[t % 2][kTile - 1 - threadIdx.x], t);
    pipeline.consumer_release();
  }
  out[threadIdx.x] = sum;
}

__global__ void WithBarrier(const int* in, int* out) {
  using Barrier = cuda::barrier<cuda::thread_scope_block>;
  __shared__ alignas(16) int tile[kTile];
  __shared__ Barrier barrier;
  if (threadIdx.x == 0) init(&barrier, kBlock);
  __syncthreads();
  int sum = 0;
  for (int t = 0; t < kTiles; ++t) {
    cuda::memcpy_async(tile + threadIdx.x, in + t * kTile + threadIdx.x,
                       sizeof(int), barrier);
    barrier.arrive_and_wait();
    sum += Work(tile[kTile - 1 - threadIdx.x], t);
    auto token = barrier.arrive();
    barrier.wait(cuda::std::move(token));
  }
  out[threadIdx.x] = sum;
}

__global__ void WithPrimitives(const int* in, int* out) {
  __shared__ alignas(16) int tile[kTiles][kTile];
  for (int t = 0; t < kTiles; ++t) {
    __pipeline_memcpy_async(&tile[t][threadIdx.x], in + t * kTile + threadIdx.x,
                            sizeof(int));
    __pipeline_commit();
  }
  int sum = 0;
  __pipeline_wait_prior(kTiles / 2);  // the first half
  __syncthreads();
  for (int t = 0; t < kTiles / 2; ++t) {
    sum += Work(tile[t][kTile - 1 - threadIdx.x], t);
  }
  __pipeline_wait_prior(0);
  __syncthreads();
  for (int t = kTiles / 2; t < kTiles; ++t) {
    sum += Work(tile[t][kTile - 1 - threadIdx.x], t);
  }
  out[threadIdx.x] = sum;
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = kTiles * kTile;
  int* in = Allocate<int>(n);
  int* out = Allocate<int>(4 * kBlock);
  Digest digest;
  Random random(137);
  for (int it = 0; it < iterations; ++it) {
    std::vector<int> host(n), want(4 * kBlock);
    for (int& x : host) x = static_cast<int>(random.Next() % 100000);
    Upload(in, host);
    WithGroups<<<1, kBlock>>>(in, out);
    WithPipeline<<<1, kBlock>>>(in, out + kBlock);
    WithBarrier<<<1, kBlock>>>(in, out + 2 * kBlock);
    WithPrimitives<<<1, kBlock>>>(in, out + 3 * kBlock);
    for (int i = 0; i < 4 * kBlock; ++i) {
      for (int t = 0; t < kTiles; ++t) {
        want[i] += host[t * kTile + kTile - 1 - i % kBlock] * 3 + t;
      }
    }
    const auto got = Download(out, 4 * kBlock);
    ExpectSame(got, want, "sums");
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
