#include "ckpt/format/digest.h"

// XXH3_generateSecret_fromSeed is in the static part of the interface.
#define XXH_STATIC_LINKING_ONLY
#include <xxh_x86dispatch.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "pos/base/bytes.h"

namespace pos::ckpt {
namespace {

constexpr std::uint64_t kLevelStep = 0x9e3779b97f4a7c15;

Digest FromHash(const XXH128_hash_t& hash) {
  Digest digest;
  std::memcpy(digest.bytes.data(), &hash.low64, 8);
  std::memcpy(digest.bytes.data() + 8, &hash.high64, 8);
  return digest;
}

}  // namespace

std::uint64_t Digest::Prefix() const {
  std::uint64_t prefix = 0;
  std::memcpy(&prefix, bytes.data(), sizeof(prefix));
  return prefix;
}

std::string Digest::Hex() const { return HexBytes(bytes); }

DigestKey::DigestKey(std::uint64_t seed) : seed_(seed) {
  static_assert(kSecretBytes == XXH3_SECRET_DEFAULT_SIZE);
  // With the secret made from a seed, XXH3 of more than 240 bytes equals the
  // seeded variant without expanding the seed for every block.
  XXH3_generateSecret_fromSeed(leaf_.data(), seed);
  XXH3_generateSecret_fromSeed(node_.data(), seed + kLevelStep);
  XXH3_generateSecret_fromSeed(last_.data(), seed + 2 * kLevelStep);
}

Digest DigestStream::Block(const DigestKey::Secret& secret,
                           const std::byte* block) {
  return FromHash(XXH3_128bits_withSecret_dispatch(
      block, kBlockBytes, secret.data(), secret.size()));
}

void DigestStream::Push(std::size_t level, const Digest& digest) {
  for (Digest next = digest;; ++level) {
    Level& at = levels_[level];
    std::memcpy(at.block.data() + at.used, next.bytes.data(), sizeof(Digest));
    at.used += sizeof(Digest);
    if (at.used < kBlockBytes) return;
    next = Block(key_.node_, at.block.data());
    at.used = 0;
    ++at.made;
  }
}

void DigestStream::Update(std::span<const std::byte> data) {
  length_ += data.size();
  if (partial_used_ > 0) {
    const std::size_t take = std::min(kBlockBytes - partial_used_, data.size());
    std::memcpy(partial_.data() + partial_used_, data.data(), take);
    partial_used_ += take;
    data = data.subspan(take);
    if (partial_used_ < kBlockBytes) return;
    Push(0, Block(key_.leaf_, partial_.data()));
    partial_used_ = 0;
  }
  while (data.size() >= kBlockBytes) {
    Push(0, Block(key_.leaf_, data.data()));
    data = data.subspan(kBlockBytes);
  }
  if (!data.empty()) {
    std::memcpy(partial_.data(), data.data(), data.size());
    partial_used_ = data.size();
  }
}

void DigestStream::UpdateWithBlocks(std::span<const std::byte> blocks,
                                    std::uint64_t bytes) {
  length_ += bytes;
  Level& leaves = levels_[0];
  while (!blocks.empty()) {
    const std::size_t take = std::min(kBlockBytes - leaves.used, blocks.size());
    std::memcpy(leaves.block.data() + leaves.used, blocks.data(), take);
    leaves.used += take;
    blocks = blocks.subspan(take);
    if (leaves.used < kBlockBytes) return;
    leaves.used = 0;
    ++leaves.made;
    Push(1, Block(key_.node_, leaves.block.data()));
  }
}

Digest DigestStream::Finish() {
  if (partial_used_ > 0) {
    std::fill(partial_.begin() + static_cast<std::ptrdiff_t>(partial_used_),
              partial_.end(), std::byte{0});
    Push(0, Block(key_.leaf_, partial_.data()));
  }
  Digest top;
  for (std::size_t k = 0; k < kLevels && length_ > 0; ++k) {
    Level& at = levels_[k];
    if (at.made == 0 && at.used == sizeof(Digest)) {
      std::memcpy(top.bytes.data(), at.block.data(), sizeof(Digest));
      break;
    }
    if (at.used == 0) continue;
    std::fill(at.block.begin() + static_cast<std::ptrdiff_t>(at.used),
              at.block.end(), std::byte{0});
    Push(k + 1, Block(key_.node_, at.block.data()));
  }
  partial_.fill(std::byte{0});
  std::memcpy(partial_.data(), top.bytes.data(), sizeof(Digest));
  std::memcpy(partial_.data() + sizeof(Digest), &length_, sizeof(length_));
  const Digest digest = Block(key_.last_, partial_.data());
  for (Level& level : levels_) level.used = level.made = 0;
  length_ = 0;
  partial_used_ = 0;
  return digest;
}

Digest DigestOf(const DigestKey& key, std::span<const std::byte> data) {
  DigestStream stream(key);
  stream.Update(data);
  return stream.Finish();
}

std::uint64_t Sum64(std::span<const std::byte> data, std::uint64_t seed) {
  return XXH3_64bits_withSeed_dispatch(data.data(), data.size(), seed);
}

bool AllZero(std::span<const std::byte> data) {
  constexpr std::size_t kStep = 256;
  while (data.size() >= kStep) {
    // A fixed-size loop without branches, which the compiler vectorises.
    std::uint64_t any = 0;
    for (std::size_t i = 0; i < kStep; i += sizeof(any)) {
      std::uint64_t word = 0;
      std::memcpy(&word, data.data() + i, sizeof(word));
      any |= word;
    }
    if (any != 0) return false;
    data = data.subspan(kStep);
  }
  return std::all_of(data.begin(), data.end(),
                     [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace pos::ckpt
