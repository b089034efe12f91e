// AES-128 in counter mode with tables in constant memory, against an
// implementation from the definition (FIPS 197), which the standard's own
// example checks first.
#include "arrays.h"

using Byte = unsigned char;

__constant__ unsigned table[256];  // SubBytes and MixColumns, column 0
__constant__ Byte box[256];
__constant__ unsigned round_keys[44];

Byte Double(Byte x) { return static_cast<Byte>(x << 1 ^ (x >> 7) * 0x1b); }

Byte Multiply(Byte a, Byte b) {
  Byte product = 0;
  for (; b != 0; b >>= 1, a = Double(a)) product ^= b & 1 ? a : 0;
  return product;
}

std::vector<Byte> MakeBox() {
  std::vector<Byte> made(256);
  for (int x = 0; x < 256; ++x) {
    Byte inverse = 0;
    for (int y = 1; y < 256; ++y) {
      if (Multiply(static_cast<Byte>(x), static_cast<Byte>(y)) == 1) {
        inverse = static_cast<Byte>(y);
      }
    }
    unsigned s = inverse * 0x101u;  // so that a shift rotates
    made[x] = static_cast<Byte>(s ^ s >> 4 ^ s >> 5 ^ s >> 6 ^ s >> 7 ^ 0x63);
  }
  return made;
}

std::vector<unsigned> ExpandKey(const Byte key[16],
                                const std::vector<Byte>& sbox) {
  std::vector<unsigned> w(44);
  Byte constant = 1;
  for (int i = 0; i < 44; ++i) {
    if (i < 4) {
      w[i] = key[4 * i] | key[4 * i + 1] << 8 | key[4 * i + 2] << 16 |
             static_cast<unsigned>(key[4 * i + 3]) << 24;
      continue;
    }
    unsigned t = w[i - 1];
    if (i % 4 == 0) {
      t = t >> 8 | t << 24;
      t = sbox[t & 255] | sbox[t >> 8 & 255] << 8 | sbox[t >> 16 & 255] << 16 |
          static_cast<unsigned>(sbox[t >> 24]) << 24;
      t ^= constant;
      constant = Double(constant);
    }
    w[i] = w[i - 4] ^ t;
  }
  return w;
}

// From the definition, byte by byte.
void Encrypt(Byte s[16], const std::vector<unsigned>& w,
             const std::vector<Byte>& sbox) {
  auto add_key = [&](int round) {
    for (int i = 0; i < 16; ++i) {
      s[i] ^= static_cast<Byte>(w[4 * round + i / 4] >> (8 * (i % 4)));
    }
  };
  add_key(0);
  for (int round = 1; round <= 10; ++round) {
    Byte t[16];
    for (int i = 0; i < 16; ++i) t[i] = sbox[s[(i + 4 * (i % 4)) % 16]];
    for (int c = 0; c < 16; c += 4) {
      for (int r = 0; r < 4; ++r) {
        s[c + r] = round == 10
                       ? t[c + r]
                       : static_cast<Byte>(Double(t[c + r]) ^
                                           Multiply(t[c + (r + 1) % 4], 3) ^
                                           t[c + (r + 2) % 4] ^
                                           t[c + (r + 3) % 4]);
      }
    }
    add_key(round);
  }
}

__device__ unsigned Rotate(unsigned x, int bits) {
  return __funnelshift_l(x, x, bits);
}

__global__ void Counter(const uint4* in, uint4* out, unsigned nonce) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned s[4] = {i ^ round_keys[0], nonce ^ round_keys[1], round_keys[2],
                   round_keys[3]};
  for (int round = 1; round < 10; ++round) {
    unsigned t[4];
    for (int c = 0; c < 4; ++c) {
      t[c] = table[s[c] & 255] ^
             Rotate(table[s[(c + 1) % 4] >> 8 & 255], 8) ^
             Rotate(table[s[(c + 2) % 4] >> 16 & 255], 16) ^
             Rotate(table[s[(c + 3) % 4] >> 24], 24) ^
             round_keys[4 * round + c];
    }
    for (int c = 0; c < 4; ++c) s[c] = t[c];
  }
  unsigned t[4];
  for (int c = 0; c < 4; ++c) {
    t[c] = (box[s[c] & 255] | box[s[(c + 1) % 4] >> 8 & 255] << 8 |
            box[s[(c + 2) % 4] >> 16 & 255] << 16 |
            static_cast<unsigned>(box[s[(c + 3) % 4] >> 24]) << 24) ^
           round_keys[40 + c];
  }
  const uint4 text = in[i];
  out[i] = make_uint4(text.x ^ t[0], text.y ^ t[1], text.z ^ t[2],
                      text.w ^ t[3]);
}

int main(int argc, char** argv) {
  const int iterations = Iterations(argc, argv, 3);
  const int blocks = 512;
  const std::vector<Byte> sbox = MakeBox();
  Byte key[16], example[16];
  for (int i = 0; i < 16; ++i) {
    key[i] = static_cast<Byte>(i);
    example[i] = static_cast<Byte>(i * 0x11);
  }
  Encrypt(example, ExpandKey(key, sbox), sbox);  // FIPS 197, appendix C.1
  EXPECT(example[0] == 0x69 && example[1] == 0xc4 && example[15] == 0x5a);
  std::vector<unsigned> columns(256);
  for (int x = 0; x < 256; ++x) {
    const Byte s = sbox[x];
    columns[x] = Double(s) | s << 8 | s << 16 |
                 static_cast<unsigned>(Double(s) ^ s) << 24;
  }
  CUDA(cudaMemcpyToSymbol(table, columns.data(), 1024));
  CUDA(cudaMemcpyToSymbol(box, sbox.data(), 256));
  std::vector<uint4> text(blocks);
  Random random(67);
  for (uint4& x : text) {
    x = make_uint4(random.Next(), random.Next(), random.Next(), random.Next());
  }
  uint4* in = Upload(text);
  uint4* out = Allocate<uint4>(blocks);
  Digest digest;
  for (unsigned it = 0; it < static_cast<unsigned>(iterations); ++it) {
    for (Byte& k : key) k = static_cast<Byte>(random.Next());
    const auto w = ExpandKey(key, sbox);
    CUDA(cudaMemcpyToSymbol(round_keys, w.data(), 176));
    Counter<<<blocks / 128, 128>>>(in, out, it);
    std::swap(in, out);  // what is encrypted is encrypted again
    for (unsigned i = 0; i < blocks; ++i) {
      unsigned stream[4] = {i, it, 0, 0};
      Byte bytes[16];
      std::memcpy(bytes, stream, 16);
      Encrypt(bytes, w, sbox);
      std::memcpy(stream, bytes, 16);
      text[i].x ^= stream[0];
      text[i].y ^= stream[1];
      text[i].z ^= stream[2];
      text[i].w ^= stream[3];
    }
    const auto got = Download(in, blocks);
    ExpectSame(got, text, "ciphertext");
    AddAll(digest, got);
    Progress(static_cast<int>(it), iterations);
  }
  return digest.Pass();
}
