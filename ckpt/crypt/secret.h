// Keys of 256 bits, what is derived from them, and message authentication.
// ckpt/FORMAT.md, "Keys".
//
// Source:  OpenSSL 3 (libcrypto): HKDF (RFC 5869) and HMAC (RFC 2104), both
//          with SHA-256.
// Threads: values; a Mac belongs to one thread.
// Secrecy: a Secret is not copied, is wiped when it goes, and is never part of
//          a message or a log line. Its id is.
//
// Test: tests/ckpt/crypt/crypt_test.cc
#ifndef CKPT_CRYPT_SECRET_H_
#define CKPT_CRYPT_SECRET_H_

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct evp_mac_ctx_st;

namespace pos::ckpt {

inline constexpr std::size_t kSecretBytes = 32;

class Secret {
 public:
  Secret() = default;
  explicit Secret(std::span<const std::byte, kSecretBytes> bytes);
  ~Secret();
  Secret(Secret&& other) noexcept;
  Secret& operator=(Secret&& other) noexcept;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;

  [[nodiscard]] std::span<const std::byte, kSecretBytes> bytes() const {
    return bytes_;
  }
  // For who reads it from somewhere.
  [[nodiscard]] std::span<std::byte, kSecretBytes> writable() { return bytes_; }
  [[nodiscard]] Secret Copy() const { return Secret(bytes_); }

 private:
  std::array<std::byte, kSecretBytes> bytes_{};
};

[[nodiscard]] Secret RandomSecret();

// HKDF: a secret for one use. `info` names the use.
[[nodiscard]] Secret Derive(const Secret& secret,
                            std::span<const std::byte> salt,
                            std::string_view info);

// Tells keys apart without giving anything of them away.
using KeyId = std::array<std::byte, 16>;
[[nodiscard]] KeyId IdOf(const Secret& secret);

using MacBytes = std::array<std::byte, 32>;
class Mac {
 public:
  explicit Mac(const Secret& secret);
  ~Mac();
  Mac(const Mac&) = delete;
  Mac& operator=(const Mac&) = delete;

  void Update(std::span<const std::byte> data);
  // Of everything so far. Once.
  [[nodiscard]] MacBytes Finish();

 private:
  evp_mac_ctx_st* context_;
};

// In a time that does not depend on where they differ.
[[nodiscard]] bool SameMac(std::span<const std::byte> a,
                           std::span<const std::byte> b);

void Wipe(std::span<std::byte> bytes);

}  // namespace pos::ckpt

#endif  // CKPT_CRYPT_SECRET_H_
