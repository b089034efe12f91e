// Virtual memory management: pieces of device memory mapped to one range,
// exchanged, mapped twice, grown as expandable segments grow.
#include <cuda.h>
#include <cuda_runtime.h>

#include <utility>
#include <vector>

#include "check.h"

#define DRIVER(call)                                   \
  do {                                                 \
    const CUresult check_r = (call);                   \
    if (check_r != CUDA_SUCCESS) {                     \
      FAIL("%s:%d: %s: %d", __FILE__, __LINE__, #call, \
           static_cast<int>(check_r));                 \
    }                                                  \
  } while (0)

__global__ void Mix(unsigned* data, unsigned n, unsigned salt) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) data[i] = data[i] * 1664525u + salt + i;
}

namespace {

constexpr int kPieces = 4;

struct Segment {
  CUdeviceptr base = 0;
  std::size_t piece = 0;
  std::vector<CUmemGenericAllocationHandle> held;
  CUmemAccessDesc access{};

  void MapAt(int i) {
    DRIVER(cuMemMap(base + i * piece, piece, 0, held[i], 0));
    DRIVER(cuMemSetAccess(base + i * piece, piece, &access, 1));
  }
};

}  // namespace

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 60);
  CUDA(cudaFree(nullptr));
  CUdevice device = 0;
  DRIVER(cuCtxGetDevice(&device));
  CUmemAllocationProp prop{};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  prop.location.id = device;
  Segment segment;
  segment.access.location = prop.location;
  segment.access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  DRIVER(cuMemGetAllocationGranularity(&segment.piece, &prop,
                                       CU_MEM_ALLOC_GRANULARITY_RECOMMENDED));
  // Room for each piece, and for a second view of the first.
  const std::size_t room = (kPieces + 1) * segment.piece;
  DRIVER(cuMemAddressReserve(&segment.base, room, 0, 0, 0));
  EXPECT(segment.base % segment.piece == 0);
  const unsigned words = static_cast<unsigned>(segment.piece / 4);
  std::vector<std::vector<unsigned>> want(kPieces,
                                          std::vector<unsigned>(words));
  for (int i = 0; i < kPieces; ++i) {
    CUmemGenericAllocationHandle handle = 0;
    DRIVER(cuMemCreate(&handle, segment.piece, &prop, 0));
    segment.held.push_back(handle);
    segment.MapAt(i);
    DRIVER(cuMemsetD32(segment.base + i * segment.piece, i, words));
    want[i].assign(words, i);
  }
  Digest digest;
  std::vector<unsigned> got(words);
  for (int round = 0; round < iterations; ++round) {
    for (int i = 0; i < kPieces; ++i) {
      const unsigned salt = round * 31 + i;
      Mix<<<(words + 255) / 256, 256>>>(
          reinterpret_cast<unsigned*>(segment.base + i * segment.piece), words,
          salt);
      for (unsigned w = 0; w < words; ++w) {
        want[i][w] = want[i][w] * 1664525u + salt + w;
      }
    }
    CUDA(cudaDeviceSynchronize());
    // Two neighbours change places; content goes with the memory.
    const int a = round % (kPieces - 1);
    DRIVER(cuMemUnmap(segment.base + a * segment.piece, 2 * segment.piece));
    std::swap(segment.held[a], segment.held[a + 1]);
    std::swap(want[a], want[a + 1]);
    segment.MapAt(a);
    segment.MapAt(a + 1);
    // The first piece is also seen at the end of the range.
    const CUdeviceptr view = segment.base + kPieces * segment.piece;
    DRIVER(cuMemMap(view, segment.piece, 0, segment.held[0], 0));
    DRIVER(cuMemSetAccess(view, segment.piece, &segment.access, 1));
    DRIVER(cuMemcpyDtoH(got.data(), view, segment.piece));
    EXPECT(got == want[0]);
    DRIVER(cuMemUnmap(view, segment.piece));
    for (int i = 0; i < kPieces; ++i) {
      DRIVER(cuMemcpyDtoH(got.data(), segment.base + i * segment.piece,
                          segment.piece));
      EXPECT(got == want[i]);
    }
    digest.AddValue(got[round % words]);
    Progress(round, iterations);
  }
  DRIVER(cuMemUnmap(segment.base, kPieces * segment.piece));
  for (const CUmemGenericAllocationHandle handle : segment.held) {
    DRIVER(cuMemRelease(handle));
  }
  DRIVER(cuMemAddressFree(segment.base, room));
  return digest.Pass();
}
