#include "pos/cuda_impl/device_cuda/digest_kernel.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace pos::cuda_device {
namespace {

// xxHash's constants, by their names in its specification.
constexpr std::uint64_t kPrime32_1 = 0x9E3779B1;
constexpr std::uint64_t kPrime32_2 = 0x85EBCA77;
constexpr std::uint64_t kPrime32_3 = 0xC2B2AE3D;
constexpr std::uint64_t kPrime64_1 = 0x9E3779B185EBCA87;
constexpr std::uint64_t kPrime64_2 = 0xC2B2AE3D27D4EB4F;
constexpr std::uint64_t kPrime64_3 = 0x165667B19E3779F9;
constexpr std::uint64_t kPrime64_4 = 0x85EBCA77C2B2AE63;
constexpr std::uint64_t kPrime64_5 = 0x27D4EB2F165667C5;
constexpr std::uint64_t kPrimeMx1 = 0x165667919E3779F9;

constexpr std::uint64_t kBlockBytes = 4096;
constexpr int kStripes = 16;  // between two scrambles: (192 - 64) / 8

// Where MakeDigestKeys puts what, in words.
constexpr int kLastStripe = 24;
constexpr int kMergeLow = 32;
constexpr int kMergeHigh = 40;
constexpr int kStart = 48;

std::string Number(std::uint64_t n) { return std::to_string(n); }

// Lines of PTX; every $ in `text` becomes `n`.
void Add(std::string* out, std::string_view text, std::uint64_t n = 0) {
  for (const char c : text) {
    c == '$' ? out->append(Number(n)) : out->append(1, c);
  }
}

// Lanes a0 and a1 take in the words d0 and d1 under the keys kx and ky: each
// word goes to the other lane as it is, and the product of the halves of word
// and key to its own.
void Accumulate(std::string* out, const std::string& d0, const std::string& d1,
                const std::string& kx, const std::string& ky) {
  *out += "  xor.b64 %x, " + d0 + ", " + kx + ";\n" +
          "  mov.b64 {%lo, %hi}, %x;\n"
          "  mul.wide.u32 %x, %lo, %hi;\n"
          "  add.s64 %a0, %a0, %x;\n"
          "  add.s64 %a0, %a0, " +
          d1 + ";\n" + "  xor.b64 %x, " + d1 + ", " + ky + ";\n" +
          "  mov.b64 {%lo, %hi}, %x;\n"
          "  mul.wide.u32 %x, %lo, %hi;\n"
          "  add.s64 %a1, %a1, %x;\n"
          "  add.s64 %a1, %a1, " +
          d0 + ";\n";
}

void Scramble(std::string* out, const std::string& lane,
              const std::string& key) {
  *out += "  shr.u64 %x, " + lane + ", 47;\n" + "  xor.b64 " + lane + ", " +
          lane + ", %x;\n" + "  xor.b64 " + lane + ", " + lane + ", " + key +
          ";\n" + "  mul.lo.u64 " + lane + ", " + lane + ", " +
          Number(kPrime32_1) + ";\n";
}

constexpr std::string_view kHead = R"(.version 6.3
.target sm_70
.address_size 64
.visible .global .align 16 .b64 pos_digest_keys[56];
.visible .entry pos_digest(.param .u64 pieces)
.maxntid 256, 1, 1
{
  .reg .pred %p, %q, %whole;
  .reg .b32 %t, %j, %blk, %lane, %mask, %r, %lo, %hi, %lo2, %hi2, %i, %n;
  .reg .b64 %piece, %source, %digests, %bytes, %left, %key, %at, %o, %e;
  .reg .b64 %a0, %a1, %x, %y, %w0, %w1, %z0, %z1, %kx, %ky, %low, %high;
  .reg .b64 %k<18>, %d<32>;
  .reg .b16 %b;

  // Its piece, its block in that, its pair of lanes.
  mov.u32 %t, %tid.x;
  and.b32 %j, %t, 3;
  shr.u32 %blk, %t, 2;
  ld.param.u64 %piece, [pieces];
  mov.u32 %r, %ctaid.x;
  mul.wide.u32 %x, %r, 24;
  add.s64 %piece, %piece, %x;
  ld.global.u64 %source, [%piece];
  ld.global.u64 %digests, [%piece+8];
  ld.global.u64 %bytes, [%piece+16];
  mul.wide.u32 %x, %blk, 4096;
  setp.ge.u64 %p, %x, %bytes;
  @%p bra END;
  sub.s64 %left, %bytes, %x;
  add.s64 %source, %source, %x;
  mul.wide.u32 %x, %blk, 16;
  add.s64 %digests, %digests, %x;
  and.b32 %lane, %t, 28;
  mov.u32 %mask, 15;
  shl.b32 %mask, %mask, %lane;
  mov.u64 %key, pos_digest_keys;
  mul.wide.u32 %x, %j, 16;
  add.s64 %key, %key, %x;
  ld.global.u64 %a0, [%key+384];
  ld.global.u64 %a1, [%key+392];

  setp.ge.u64 %p, %left, 4096;
  and.b64 %x, %source, 15;
  setp.eq.u64 %whole, %x, 0;
  and.pred %whole, %whole, %p;
  @!%whole bra EDGE;
)";

// One word of the block at offset %o, to %w: what lies at %left or behind is 0.
constexpr std::string_view kEdgeWord = R"(
  mov.u64 %w$, 0;
  setp.ge.u64 %p, %o, %left;
  @%p bra HAVE$;
  add.s64 %at, %source, %o;
  add.s64 %e, %o, 8;
  setp.gt.u64 %p, %e, %left;
  and.b64 %x, %at, 7;
  setp.ne.u64 %q, %x, 0;
  or.pred %p, %p, %q;
  @%p bra BYTES$;
  ld.global.u64 %w$, [%at];
  bra.uni HAVE$;
BYTES$:
  mov.u32 %r, 0;
BYTE$:
  ld.global.u8 %b, [%at];
  cvt.u64.u16 %x, %b;
  shl.b64 %x, %x, %r;
  or.b64 %w$, %w$, %x;
  add.s64 %at, %at, 1;
  add.s64 %o, %o, 1;
  add.u32 %r, %r, 8;
  setp.lt.u32 %p, %r, 64;
  setp.lt.u64 %q, %o, %left;
  and.pred %p, %p, %q;
  @%p bra BYTE$;
HAVE$:
)";

constexpr std::string_view kEdgeStripe = R"(
  // Its keys: the last of the 64 stripes has others.
  and.b32 %n, %i, 15;
  mul.wide.u32 %x, %n, 8;
  setp.eq.u32 %p, %i, 63;
  selp.b64 %x, 192, %x, %p;
  add.s64 %x, %key, %x;
  ld.global.u64 %kx, [%x];
  ld.global.u64 %ky, [%x+8];
)";

// %z0 of the thread and of the one that differs in bit $, added up; the
// exchange is by halves.
constexpr std::string_view kSum = R"(
  mov.b64 {%lo, %hi}, %z0;
  shfl.sync.bfly.b32 %lo2, %lo, $, 31, %mask;
  shfl.sync.bfly.b32 %hi2, %hi, $, 31, %mask;
  mov.b64 %z1, {%lo2, %hi2};
  add.s64 %z0, %z0, %z1;
)";

// One half of the digest: the products of the pairs of lanes under the keys
// there, low half xor high half of each, added to `start`, and mixed.
void Finish(std::string* out, int keys, std::uint64_t start,
            const std::string& to) {
  const std::uint64_t offset = static_cast<std::uint64_t>(keys) * 8;
  Add(out, "\n  ld.global.u64 %kx, [%key+$];\n", offset);
  Add(out, "  ld.global.u64 %ky, [%key+$];\n", offset + 8);
  *out +=
      "  xor.b64 %x, %a0, %kx;\n"
      "  xor.b64 %y, %a1, %ky;\n"
      "  mul.lo.u64 %z0, %x, %y;\n"
      "  mul.hi.u64 %z1, %x, %y;\n"
      "  xor.b64 %z0, %z0, %z1;\n";
  Add(out, kSum, 1);
  Add(out, kSum, 2);
  *out += "  add.s64 " + to + ", %z0, " + Number(start) + ";\n" +
          "  shr.u64 %x, " + to + ", 37;\n" + "  xor.b64 " + to + ", " + to +
          ", %x;\n" + "  mul.lo.u64 " + to + ", " + to + ", " +
          Number(kPrimeMx1) + ";\n" + "  shr.u64 %x, " + to + ", 32;\n" +
          "  xor.b64 " + to + ", " + to + ", %x;\n";
}

// Whole blocks: 16 stripes at a time, their keys in registers.
void AddWhole(std::string* out) {
  for (std::uint64_t n = 0; n < kStripes + 2; ++n) {
    *out +=
        "  ld.global.u64 %k" + Number(n) + ", [%key+" + Number(n * 8) + "];\n";
  }
  *out +=
      "  mul.wide.u32 %x, %j, 16;\n"
      "  add.s64 %at, %source, %x;\n"
      "  mov.u32 %i, 0;\n"
      "STRIPES:\n";
  for (std::uint64_t n = 0; n < kStripes; ++n) {
    *out += "  ld.global.v2.u64 {%d" + Number(2 * n) + ", %d" +
            Number(2 * n + 1) + "}, [%at+" + Number(n * 64) + "];\n";
  }
  for (std::uint64_t n = 0; n + 1 < kStripes; ++n) {
    Accumulate(out, "%d" + Number(2 * n), "%d" + Number(2 * n + 1),
               "%k" + Number(n), "%k" + Number(n + 1));
  }
  // The last stripe of all has keys of its own, and no scramble behind it.
  *out += "  setp.eq.u32 %p, %i, 3;\n  @%p bra LAST;\n";
  Accumulate(out, "%d30", "%d31", "%k15", "%k16");
  Scramble(out, "%a0", "%k16");
  Scramble(out, "%a1", "%k17");
  *out +=
      "  add.s64 %at, %at, 1024;\n"
      "  add.u32 %i, %i, 1;\n"
      "  bra.uni STRIPES;\n"
      "LAST:\n"
      "  ld.global.u64 %kx, [%key+192];\n"
      "  ld.global.u64 %ky, [%key+200];\n";
  Accumulate(out, "%d30", "%d31", "%kx", "%ky");
  *out += "  bra.uni MERGE;\n";
}

void AddEdge(std::string* out) {
  *out +=
      "EDGE:\n"
      "  mov.u32 %i, 0;\n"
      "STRIPE:\n"
      "  mul.wide.u32 %o, %i, 64;\n"
      "  mul.wide.u32 %y, %j, 16;\n"
      "  add.s64 %y, %o, %y;\n"
      "  mov.u64 %o, %y;\n";
  Add(out, kEdgeWord, 0);
  *out += "  add.s64 %o, %y, 8;\n";
  Add(out, kEdgeWord, 1);
  Add(out, kEdgeStripe);
  Accumulate(out, "%w0", "%w1", "%kx", "%ky");
  *out +=
      "  setp.ne.u32 %p, %n, 15;\n"
      "  setp.eq.u32 %q, %i, 63;\n"
      "  or.pred %p, %p, %q;\n"
      "  @%p bra NEXT;\n"
      "  ld.global.u64 %kx, [%key+128];\n"
      "  ld.global.u64 %ky, [%key+136];\n";
  Scramble(out, "%a0", "%kx");
  Scramble(out, "%a1", "%ky");
  *out +=
      "NEXT:\n"
      "  add.u32 %i, %i, 1;\n"
      "  setp.lt.u32 %p, %i, 64;\n"
      "  @%p bra STRIPE;\n";
}

}  // namespace

DigestKeys MakeDigestKeys(std::span<const std::byte, 192> secret) {
  DigestKeys keys{};
  const auto put = [&](int to, std::size_t from, std::size_t words) {
    std::memcpy(keys.data() + to, secret.data() + from, words * 8);
  };
  put(0, 0, 24);
  put(kLastStripe, 192 - 64 - 7, 8);
  put(kMergeLow, 11, 8);
  put(kMergeHigh, 192 - 64 - 11, 8);
  const std::array<std::uint64_t, 8> start = {
      kPrime32_3, kPrime64_1, kPrime64_2, kPrime64_3,
      kPrime64_4, kPrime32_2, kPrime64_5, kPrime32_1};
  std::copy(start.begin(), start.end(), keys.begin() + kStart);
  return keys;
}

std::string DigestModule() {
  std::string out(kHead);
  AddWhole(&out);
  AddEdge(&out);
  out += "MERGE:\n";
  Finish(&out, kMergeLow, kBlockBytes * kPrime64_1, "%low");
  Finish(&out, kMergeHigh, ~(kBlockBytes * kPrime64_2), "%high");
  out +=
      "  setp.ne.u32 %p, %j, 0;\n"
      "  @%p bra END;\n"
      "  st.global.v2.u64 [%digests], {%low, %high};\n"
      "END:\n"
      "  ret;\n"
      "}\n";
  return out;
}

}  // namespace pos::cuda_device
