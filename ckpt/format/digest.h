// The digest that names chunks and files: 128 bits, a tree of XXH3-128 over
// blocks of 4096 bytes, so that a GPU and a CPU compute the same value at
// memory speed. ckpt/FORMAT.md, "The digest", specifies it and says why.
//
// Source: XXH3 of the xxHash library (its run-time dispatch to AVX2/AVX-512).
//
// Threads: a DigestKey is immutable and may be shared; a DigestStream belongs
//   to one thread.
// Blocking: none. Nothing allocates.
//
// Test: tests/ckpt/format/digest_test.cc
#ifndef CKPT_FORMAT_DIGEST_H_
#define CKPT_FORMAT_DIGEST_H_

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace pos::ckpt {

// The block of packs (alignment) and of the digest's tree.
inline constexpr std::size_t kBlockBytes = 4096;
// The only digest that exists so far (`digest_id` in the format).
inline constexpr std::uint32_t kDigestTreeXxh3 = 1;

struct Digest {
  std::array<std::byte, 16> bytes{};

  friend auto operator<=>(const Digest&, const Digest&) = default;
  // The first 8 bytes: already uniformly distributed, for hash tables.
  [[nodiscard]] std::uint64_t Prefix() const;
  [[nodiscard]] std::string Hex() const;
};

// What the digests of one store depend on: its seed, expanded once.
class DigestKey {
 public:
  static constexpr std::size_t kSecretBytes = 192;
  using Secret = std::array<std::byte, kSecretBytes>;

  explicit DigestKey(std::uint64_t seed);
  [[nodiscard]] std::uint64_t seed() const { return seed_; }
  // XXH3's secret for blocks of data, for those who digest them elsewhere.
  [[nodiscard]] const Secret& leaf_secret() const { return leaf_; }

 private:
  friend class DigestStream;

  std::uint64_t seed_;
  // XXH3's secrets for blocks of data, blocks of digests, and the last step.
  Secret leaf_;
  Secret node_;
  Secret last_;
};

// Digest of data that comes in pieces of any sizes. Holds one block per level
// of the tree that was reached (two for a chunk, eight for 2^64 bytes).
class DigestStream {
 public:
  explicit DigestStream(const DigestKey& key) : key_(key) {}  // must outlive it

  void Update(std::span<const std::byte> data);
  // Goes on with data that has been digested elsewhere, block by block (level 0
  // of the tree): `blocks`, which are little-endian digests of 16 bytes, stand
  // for `bytes` of data, whole blocks but for the last of all. What came before
  // was whole blocks.
  void UpdateWithBlocks(std::span<const std::byte> blocks, std::uint64_t bytes);
  // Of everything since construction or the last Finish, which it forgets.
  [[nodiscard]] Digest Finish();

 private:
  static constexpr std::size_t kFanOut = kBlockBytes / sizeof(Digest);
  static constexpr std::size_t kLevels = 8;  // 4096 * 256^7 > 2^64 bytes

  struct Level {
    std::array<std::byte, kBlockBytes> block;
    std::size_t used = 0;    // bytes of `block`
    std::uint64_t made = 0;  // blocks of this level already digested
  };

  // Appends the digest of a whole block of the level below `level`.
  void Push(std::size_t level, const Digest& digest);
  static Digest Block(const DigestKey::Secret& secret, const std::byte* block);

  const DigestKey& key_;
  std::uint64_t length_ = 0;
  std::array<std::byte, kBlockBytes> partial_;  // data not yet a whole block
  std::size_t partial_used_ = 0;
  std::array<Level, kLevels> levels_;  // levels_[k]: digests made at level k
};

[[nodiscard]] Digest DigestOf(const DigestKey& key,
                              std::span<const std::byte> data);

// XXH3_64 with `seed`: the checksum of records and stored bytes.
[[nodiscard]] std::uint64_t Sum64(std::span<const std::byte> data,
                                  std::uint64_t seed = 0);

// True when every byte is 0 (and for no bytes). Stops at the first that is
// not, so it costs nothing on data that is in use.
[[nodiscard]] bool AllZero(std::span<const std::byte> data);

}  // namespace pos::ckpt

#endif  // CKPT_FORMAT_DIGEST_H_
