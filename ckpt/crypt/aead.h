// AES-256-GCM: what is sealed can be opened with the same key, nonce and
// associated data only, and only unchanged.
//
// Source:  OpenSSL 3 (libcrypto).
// Threads: one at a time per object.
// Nonces:  never use one twice with a key; ckpt/FORMAT.md, "Encryption", says
//          how they are made.
//
// Test: tests/ckpt/crypt/crypt_test.cc
#ifndef CKPT_CRYPT_AEAD_H_
#define CKPT_CRYPT_AEAD_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ckpt/crypt/secret.h"

struct evp_cipher_ctx_st;

namespace pos::ckpt {

inline constexpr std::size_t kTagBytes = 16;

using Nonce = std::array<std::byte, 12>;
// 32 bits of `high`, then 64 of `low`, little-endian.
[[nodiscard]] Nonce MakeNonce(std::uint32_t high, std::uint64_t low);

class Aead {
 public:
  explicit Aead(const Secret& key);
  ~Aead();
  Aead(const Aead&) = delete;
  Aead& operator=(const Aead&) = delete;

  // Encrypts `data` in place and gives its tag.
  [[nodiscard]] std::array<std::byte, kTagBytes> Seal(
      const Nonce& nonce, std::span<const std::byte> associated,
      std::span<std::byte> data);
  // Decrypts `data` in place. False: it, the tag, the nonce or the associated
  // data is not what was sealed; `data` is then zeros.
  [[nodiscard]] bool Open(const Nonce& nonce,
                          std::span<const std::byte> associated,
                          std::span<std::byte> data,
                          std::span<const std::byte, kTagBytes> tag);

 private:
  const Secret key_;
  evp_cipher_ctx_st* const context_;
};

}  // namespace pos::ckpt

#endif  // CKPT_CRYPT_AEAD_H_
