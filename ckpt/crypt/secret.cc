#include "ckpt/crypt/secret.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <algorithm>
#include <cstdlib>

#include "pos/base/bytes.h"

namespace pos::ckpt {
namespace {

// None of these fails but for want of memory, or in an OpenSSL without SHA-256.
void Must(bool ok) {
  if (!ok) std::abort();
}

// OpenSSL takes what it only reads as non-const.
template <typename T>
void* Mutable(const T* data) {
  return const_cast<void*>(static_cast<const void*>(data));
}

}  // namespace

Secret::Secret(std::span<const std::byte, kSecretBytes> bytes) {
  std::copy(bytes.begin(), bytes.end(), bytes_.begin());
}

Secret::~Secret() { Wipe(bytes_); }

Secret::Secret(Secret&& other) noexcept : bytes_(other.bytes_) {
  Wipe(other.bytes_);
}

Secret& Secret::operator=(Secret&& other) noexcept {
  if (this == &other) return *this;
  bytes_ = other.bytes_;
  Wipe(other.bytes_);
  return *this;
}

Secret RandomSecret() {
  Secret secret;
  RandomBytes(secret.writable());
  return secret;
}

Secret Derive(const Secret& secret, std::span<const std::byte> salt,
              std::string_view info) {
  EVP_KDF* const kdf = ::EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  Must(kdf != nullptr);
  EVP_KDF_CTX* const context = ::EVP_KDF_CTX_new(kdf);
  ::EVP_KDF_free(kdf);
  Must(context != nullptr);
  std::array<char, 7> digest = {'S', 'H', 'A', '2', '5', '6', '\0'};
  std::array<OSSL_PARAM, 5> params = {
      ::OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest.data(),
                                         0),
      ::OSSL_PARAM_construct_octet_string(
          OSSL_KDF_PARAM_KEY, Mutable(secret.bytes().data()), kSecretBytes),
      ::OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT,
                                          Mutable(salt.data()), salt.size()),
      ::OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO,
                                          Mutable(info.data()), info.size()),
      ::OSSL_PARAM_construct_end()};
  // Without a salt: HKDF's own, of zeros.
  if (salt.empty()) {
    std::swap(params[2], params[3]);
    params[3] = ::OSSL_PARAM_construct_end();
  }
  Secret derived;
  const int ok = ::EVP_KDF_derive(
      context, reinterpret_cast<unsigned char*>(derived.writable().data()),
      kSecretBytes, params.data());
  ::EVP_KDF_CTX_free(context);
  Must(ok == 1);
  return derived;
}

KeyId IdOf(const Secret& secret) {
  const Secret derived = Derive(secret, {}, "pos key id");
  KeyId id;
  std::copy_n(derived.bytes().begin(), id.size(), id.begin());
  return id;
}

Mac::Mac(const Secret& secret) {
  EVP_MAC* const mac = ::EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  Must(mac != nullptr);
  context_ = ::EVP_MAC_CTX_new(mac);
  ::EVP_MAC_free(mac);
  Must(context_ != nullptr);
  std::array<char, 7> digest = {'S', 'H', 'A', '2', '5', '6', '\0'};
  const std::array<OSSL_PARAM, 2> params = {
      ::OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest.data(),
                                         0),
      ::OSSL_PARAM_construct_end()};
  Must(::EVP_MAC_init(
           context_,
           reinterpret_cast<const unsigned char*>(secret.bytes().data()),
           kSecretBytes, params.data()) == 1);
}

Mac::~Mac() { ::EVP_MAC_CTX_free(context_); }

void Mac::Update(std::span<const std::byte> data) {
  Must(::EVP_MAC_update(context_,
                        reinterpret_cast<const unsigned char*>(data.data()),
                        data.size()) == 1);
}

MacBytes Mac::Finish() {
  MacBytes bytes;
  std::size_t size = 0;
  Must(::EVP_MAC_final(context_, reinterpret_cast<unsigned char*>(bytes.data()),
                       &size, bytes.size()) == 1);
  Must(size == bytes.size());
  return bytes;
}

bool SameMac(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() &&
         ::CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

void Wipe(std::span<std::byte> bytes) {
  ::OPENSSL_cleanse(bytes.data(), bytes.size());
}

}  // namespace pos::ckpt
