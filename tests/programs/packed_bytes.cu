// Four bytes or two halves of a word at once: dot products, sums of absolute
// differences, saturating and averaging arithmetic, comparison, permutation.
#include <algorithm>

#include "arrays.h"

constexpr int kResults = 24;

__global__ void Run(const unsigned* in, unsigned* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const unsigned a = in[3 * i], b = in[3 * i + 1], c = in[3 * i + 2];
  const int sa = static_cast<int>(a), sb = static_cast<int>(b);
  unsigned* o = out + i * kResults;
  o[0] = __dp4a(a, b, c);
  o[1] = static_cast<unsigned>(__dp4a(sa, sb, static_cast<int>(c)));
  o[2] = __dp2a_lo(a, b, c);
  o[3] = static_cast<unsigned>(__dp2a_hi(sa, sb, static_cast<int>(c)));
  o[4] = __vabsdiffu4(a, b);
  o[5] = __vsadu4(a, b);
  o[6] = __vaddus4(a, b);
  o[7] = __vsubss4(a, b);
  o[8] = __vavgu4(a, b);
  o[9] = __vmaxs4(a, b);
  o[10] = __vminu4(a, b);
  o[11] = __vcmpgtu4(a, b);
  o[12] = __vadd4(a, b);
  o[13] = __vsub2(a, b);
  o[14] = __vaddss2(a, b);
  o[15] = __vabsdiffs2(a, b);
  o[16] = __vmaxu2(a, b);
  o[17] = __vcmpeq4(a, (a & 0xff00ff) | (b & 0xff00ff00));
  o[18] = __byte_perm(a, b, c & 0x7777);
  o[19] = __usad(a, b, c);
  o[20] = static_cast<unsigned>(__sad(sa, sb, c));
  o[21] = __vneg4(a);
  o[22] = __vabs2(a);
  o[23] = __brev(a) ^ __ffs(sa) ^ __funnelshift_r(a, b, c);
}

int Part(unsigned x, int k, int bits, bool is_signed) {
  const unsigned part = x >> (k * bits) & ((1u << bits) - 1);
  return is_signed && part >> (bits - 1) ? static_cast<int>(part) - (1 << bits)
                                         : static_cast<int>(part);
}

// f of all parts of a and b, cut to the part's width.
template <typename F>
unsigned Each(unsigned a, unsigned b, int bits, bool is_signed, F f) {
  unsigned result = 0;
  for (int k = 0; k < 32 / bits; ++k) {
    const int one =
        f(Part(a, k, bits, is_signed), Part(b, k, bits, is_signed));
    result |= (static_cast<unsigned>(one) & ((1u << bits) - 1)) << (k * bits);
  }
  return result;
}

unsigned Dot(unsigned a, unsigned b, unsigned c, bool is_signed) {
  for (int k = 0; k < 4; ++k) {
    c += static_cast<unsigned>(Part(a, k, 8, is_signed) *
                               Part(b, k, 8, is_signed));
  }
  return c;
}

unsigned Dot2(unsigned a, unsigned b, unsigned c, bool is_signed, int from) {
  for (int k = 0; k < 2; ++k) {
    c += static_cast<unsigned>(Part(a, k, 16, is_signed) *
                               Part(b, from + k, 8, is_signed));
  }
  return c;
}

int Clamp(int x, int low, int high) {
  return std::min(std::max(x, low), high);
}

void OnHost(unsigned a, unsigned b, unsigned c, unsigned* o) {
  o[0] = Dot(a, b, c, false);
  o[1] = Dot(a, b, c, true);
  o[2] = Dot2(a, b, c, false, 0);
  o[3] = Dot2(a, b, c, true, 2);
  auto distance = [](int x, int y) { return std::abs(x - y); };
  o[4] = Each(a, b, 8, false, distance);
  o[5] = Dot(o[4], 0x01010101, 0, false);
  o[6] = Each(a, b, 8, false,
              [](int x, int y) { return Clamp(x + y, 0, 255); });
  o[7] = Each(a, b, 8, true,
              [](int x, int y) { return Clamp(x - y, -128, 127); });
  o[8] = Each(a, b, 8, false, [](int x, int y) { return (x + y + 1) / 2; });
  o[9] = Each(a, b, 8, true, [](int x, int y) { return std::max(x, y); });
  o[10] = Each(a, b, 8, false, [](int x, int y) { return std::min(x, y); });
  o[11] = Each(a, b, 8, false, [](int x, int y) { return x > y ? 255 : 0; });
  o[12] = Each(a, b, 8, false, [](int x, int y) { return x + y; });
  o[13] = Each(a, b, 16, false, [](int x, int y) { return x - y; });
  o[14] = Each(a, b, 16, true,
               [](int x, int y) { return Clamp(x + y, -32768, 32767); });
  o[15] = Each(a, b, 16, true, distance);
  o[16] = Each(a, b, 16, false, [](int x, int y) { return std::max(x, y); });
  o[17] = Each(a, (a & 0xff00ff) | (b & 0xff00ff00), 8, false,
               [](int x, int y) { return x == y ? 255 : 0; });
  o[18] = 0;
  const unsigned long long both = static_cast<unsigned long long>(b) << 32 | a;
  for (int k = 0; k < 4; ++k) {
    o[18] |= static_cast<unsigned>(both >> (8 * (c >> (4 * k) & 7)) & 255)
             << (8 * k);
  }
  o[19] = (a > b ? a - b : b - a) + c;
  const int sa = static_cast<int>(a), sb = static_cast<int>(b);
  o[20] = (sa > sb ? a - b : b - a) + c;
  o[21] = Each(a, 0, 8, true, [](int x, int) { return -x; });
  o[22] = Each(a, 0, 16, true, [](int x, int) { return std::abs(x); });
  unsigned reversed = 0;
  for (int k = 0; k < 32; ++k) reversed |= (a >> k & 1) << (31 - k);
  o[23] = reversed ^ static_cast<unsigned>(__builtin_ffs(sa)) ^
          static_cast<unsigned>(both >> (c % 32));
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int n = 300;
  unsigned* in = Allocate<unsigned>(3 * n);
  unsigned* out = Allocate<unsigned>(kResults * n);
  Digest digest;
  Random random(101);
  for (int it = 0; it < iterations; ++it) {
    std::vector<unsigned> host(3 * n), want(kResults * n);
    for (unsigned& x : host) {
      x = random.Next() << 1 ^ random.Next();
      if (random.Next() % 8 == 0) x = 0x80808080u ^ (x & 0x01010101u);
      if (random.Next() % 8 == 0) x = 0x7fff8000u;
    }
    Upload(in, host);
    Run<<<(n + 63) / 64, 64>>>(in, out, n);
    for (int i = 0; i < n; ++i) {
      OnHost(host[3 * i], host[3 * i + 1], host[3 * i + 2],
             &want[i * kResults]);
    }
    const auto got = Download(out, kResults * n);
    for (int i = 0; i < n * kResults; ++i) {
      if (got[i] != want[i]) {
        FAIL("result %d of %08x %08x %08x: %08x, want %08x", i % kResults,
             host[i / kResults * 3], host[i / kResults * 3 + 1],
             host[i / kResults * 3 + 2], got[i], want[i]);
      }
    }
    AddAll(digest, got);
    Progress(it, iterations);
  }
  return digest.Pass();
}
