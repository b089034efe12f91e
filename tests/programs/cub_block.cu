// CUB's block-wide and warp-wide algorithms inside a kernel.
#include <algorithm>
#include <cub/block/block_load.cuh>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/block/block_store.cuh>
#include <cub/warp/warp_reduce.cuh>

#include "arrays.h"

constexpr int kBlock = 128;
constexpr int kItems = 4;
constexpr int kTile = kBlock * kItems;

struct Sums {
  long long total;
  int max;
  int warp[kBlock / 32];
};

__global__ void Tiles(const int* in, int* sorted, int* scanned, Sums* sums) {
  using Load = cub::BlockLoad<int, kBlock, kItems, cub::BLOCK_LOAD_TRANSPOSE>;
  using Store = cub::BlockStore<int, kBlock, kItems, cub::BLOCK_STORE_TRANSPOSE>;
  using Sort = cub::BlockRadixSort<int, kBlock, kItems>;
  using Scan = cub::BlockScan<int, kBlock>;
  using Reduce = cub::BlockReduce<long long, kBlock>;
  using ReduceMax =
      cub::BlockReduce<int, kBlock, cub::BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY>;
  using Warp = cub::WarpReduce<int>;
  __shared__ union {
    Load::TempStorage load;
    Store::TempStorage store;
    Sort::TempStorage sort;
    Scan::TempStorage scan;
    Reduce::TempStorage reduce;
    ReduceMax::TempStorage max;
    Warp::TempStorage warp[kBlock / 32];
  } temp;
  const int base = blockIdx.x * kTile;
  int items[kItems], prefix[kItems];
  Load(temp.load).Load(in + base, items);
  __syncthreads();
  Scan(temp.scan).InclusiveSum(items, prefix);
  __syncthreads();
  Store(temp.store).Store(scanned + base, prefix);
  __syncthreads();
  const int mine = items[0] + items[1] + items[2] + items[3];
  const long long total = Reduce(temp.reduce).Sum(static_cast<long long>(mine));
  __syncthreads();
  const int high =
      max(max(items[0], items[1]), max(items[2], items[3]));
  const int largest = ReduceMax(temp.max).Reduce(
      high, [](int a, int b) { return a > b ? a : b; });
  __syncthreads();
  const int warp = Warp(temp.warp[threadIdx.x / 32]).Sum(mine);
  __syncthreads();
  if (threadIdx.x % 32 == 0) sums[blockIdx.x].warp[threadIdx.x / 32] = warp;
  if (threadIdx.x == 0) {
    sums[blockIdx.x].total = total;
    sums[blockIdx.x].max = largest;
  }
  Sort(temp.sort).Sort(items);
  __syncthreads();
  Store(temp.store).Store(sorted + base, items);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int tiles = 6, n = tiles * kTile;
  int* in = Allocate<int>(n);
  int* sorted = Allocate<int>(n);
  int* scanned = Allocate<int>(n);
  Sums* sums = Allocate<Sums>(tiles);
  Digest digest;
  Random random(29);
  for (int it = 0; it < iterations; ++it) {
    std::vector<int> host(n);
    for (int& x : host) x = static_cast<int>(random.Next() % 200000) - 100000;
    Upload(in, host);
    Tiles<<<tiles, kBlock>>>(in, sorted, scanned, sums);
    const auto got_sums = Download(sums, tiles);
    const auto got_sorted = Download(sorted, n);
    const auto got_scanned = Download(scanned, n);
    for (int t = 0; t < tiles; ++t) {
      int sum = 0, warp[kBlock / 32] = {};
      for (int i = 0; i < kTile; ++i) {
        sum += host[t * kTile + i];
        warp[i / (32 * kItems)] += host[t * kTile + i];
        EXPECT(got_scanned[t * kTile + i] == sum);
      }
      EXPECT(got_sums[t].total == sum);
      EXPECT(std::memcmp(got_sums[t].warp, warp, sizeof(warp)) == 0);
      const auto begin = host.begin() + t * kTile;
      std::sort(begin, begin + kTile);
      EXPECT(got_sums[t].max == begin[kTile - 1]);
    }
    ExpectSame(got_sorted, host, "sorted tiles");
    AddAll(digest, got_sorted);
    AddAll(digest, got_scanned);
    Progress(it, iterations);
  }
  return digest.Pass();
}
