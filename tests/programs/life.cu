// Conway's game of life on a torus, a byte per cell and 32 cells per word.
#include "arrays.h"

constexpr int kWidth = 128, kHeight = 96, kWords = kWidth / 32;

__global__ void Bytes(const unsigned char* from, unsigned char* to) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  int around = 0;
  for (int dy = -1; dy <= 1; ++dy) {
    for (int dx = -1; dx <= 1; ++dx) {
      if (dx == 0 && dy == 0) continue;
      around += from[(y + dy + kHeight) % kHeight * kWidth +
                     (x + dx + kWidth) % kWidth];
    }
  }
  to[y * kWidth + x] = around == 3 || (around == 2 && from[y * kWidth + x]);
}

// All 32 cells of a word at once, with counters of one bit each.
__global__ void Words(const unsigned* from, unsigned* to) {
  const int w = threadIdx.x, y = blockIdx.x;
  unsigned ones = 0, twos = 0, fours = 0;
  auto add = [&](unsigned cells) {
    const unsigned carry = ones & cells;
    ones ^= cells;
    fours |= twos & carry;
    twos ^= carry;
  };
  for (int dy = -1; dy <= 1; ++dy) {
    const unsigned* row = from + (y + dy + kHeight) % kHeight * kWords;
    const unsigned mine = row[w];
    add(__funnelshift_l(row[(w + kWords - 1) % kWords], mine, 1));
    add(__funnelshift_r(mine, row[(w + 1) % kWords], 1));
    if (dy != 0) add(mine);
  }
  const unsigned alive = from[y * kWords + w];
  to[y * kWords + w] = twos & ~fours & (ones | alive);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 5);
  const int n = kWidth * kHeight, words = n / 32;
  std::vector<unsigned char> cells(n), next(n);
  std::vector<unsigned> packed(words);
  Random random(59);
  for (int i = 0; i < n; ++i) {
    cells[i] = random.Next() % 3 == 0;
    packed[i / 32] |= static_cast<unsigned>(cells[i]) << (i % 32);
  }
  unsigned char* bytes_a = Upload(cells);
  unsigned char* bytes_b = Allocate<unsigned char>(n);
  unsigned* words_a = Upload(packed);
  unsigned* words_b = Allocate<unsigned>(words);
  Digest digest;
  for (int it = 0; it < iterations; ++it) {
    Bytes<<<dim3(kWidth / 32, kHeight / 8), dim3(32, 8)>>>(bytes_a, bytes_b);
    Words<<<kHeight, kWords>>>(words_a, words_b);
    std::swap(bytes_a, bytes_b);
    std::swap(words_a, words_b);
    for (int y = 0; y < kHeight; ++y) {
      for (int x = 0; x < kWidth; ++x) {
        int around = -cells[y * kWidth + x];
        for (int k = 0; k < 9; ++k) {
          around += cells[(y + k / 3 + kHeight - 1) % kHeight * kWidth +
                          (x + k % 3 + kWidth - 1) % kWidth];
        }
        next[y * kWidth + x] =
            around == 3 || (around == 2 && cells[y * kWidth + x]);
      }
    }
    cells.swap(next);
    ExpectSame(Download(bytes_a, n), cells, "cells");
    const auto got = Download(words_a, words);
    for (int i = 0; i < n; ++i) {
      EXPECT((got[i / 32] >> (i % 32) & 1) == cells[i]);
    }
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
