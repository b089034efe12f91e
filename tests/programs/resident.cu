// Much memory, of which little changes: like a model in training. Every chunk
// holds numbers that look random and tell chunk and version apart; some chunks
// are written anew in each iteration, and all are checked on the device.
//   RESIDENT_MIB      size (default 32)
//   RESIDENT_PERCENT  of the chunks, written in each iteration (default 10)
//   RESIDENT_MS       pause of the host in each iteration (default 0)
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"

constexpr unsigned kChunkWords = (2u << 20) / 4;

__device__ __host__ inline unsigned Word(unsigned chunk, unsigned version,
                                         unsigned i) {
  unsigned x = (chunk * 2654435761u) ^ (version * 40503u) ^ (i * 2246822519u);
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

__global__ void Write(unsigned* chunk, unsigned number, unsigned version) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < kChunkWords;
       i += gridDim.x * blockDim.x) {
    chunk[i] = Word(number, version, i);
  }
}

__global__ void Compare(const unsigned* chunk, unsigned number,
                        unsigned version, unsigned* wrong) {
  unsigned n = 0;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < kChunkWords;
       i += gridDim.x * blockDim.x) {
    n += chunk[i] != Word(number, version, i);
  }
  if (n != 0) atomicAdd(wrong, n);
}

static unsigned FromEnvironment(const char* name, unsigned otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoul(value, nullptr, 10);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  const unsigned chunks = FromEnvironment("RESIDENT_MIB", 32) / 2;
  const unsigned percent = FromEnvironment("RESIDENT_PERCENT", 10);
  const unsigned pause_ms = FromEnvironment("RESIDENT_MS", 0);
  const unsigned each = chunks * percent / 100 > 0 ? chunks * percent / 100 : 1;
  unsigned *data, *wrong;
  CUDA(cudaMalloc(&data, size_t{chunks} * kChunkWords * 4));
  CUDA(cudaMalloc(&wrong, 4));
  CUDA(cudaMemset(wrong, 0, 4));
  std::vector<unsigned> version(chunks, 1);
  for (unsigned c = 0; c < chunks; ++c) {
    Write<<<64, 128>>>(data + size_t{c} * kChunkWords, c, 1);
  }
  Digest digest;
  unsigned next = 0;
  for (int it = 0; it < iterations; ++it) {
    for (unsigned k = 0; k < each; ++k, next = (next + 1) % chunks) {
      Write<<<64, 128>>>(data + size_t{next} * kChunkWords, next,
                         ++version[next]);
    }
    const unsigned c = (it * 7u) % chunks;
    Compare<<<64, 128>>>(data + size_t{c} * kChunkWords, c, version[c], wrong);
    CUDA(cudaDeviceSynchronize());
    std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
    Progress(it, iterations);
  }
  for (unsigned c = 0; c < chunks; ++c) {
    Compare<<<64, 128>>>(data + size_t{c} * kChunkWords, c, version[c], wrong);
    digest.AddValue(version[c]);
  }
  unsigned count = 1;
  CUDA(cudaMemcpy(&count, wrong, 4, cudaMemcpyDeviceToHost));
  if (count != 0) FAIL("%u words are wrong", count);
  CUDA(cudaFree(data));
  CUDA(cudaFree(wrong));
  return digest.Pass();
}
