#include "ckpt/crypt/aead.h"

#include <openssl/evp.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>

namespace pos::ckpt {
namespace {

void Must(bool ok) {
  if (!ok) std::abort();  // no memory, or an OpenSSL without AES-256-GCM
}

unsigned char* Raw(std::byte* bytes) {
  return reinterpret_cast<unsigned char*>(bytes);
}
const unsigned char* Raw(const std::byte* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}

int Length(std::size_t bytes) {
  Must(bytes <= INT_MAX);
  return static_cast<int>(bytes);
}

}  // namespace

Nonce MakeNonce(std::uint32_t high, std::uint64_t low) {
  Nonce nonce;
  std::memcpy(nonce.data(), &high, sizeof(high));
  std::memcpy(nonce.data() + sizeof(high), &low, sizeof(low));
  return nonce;
}

Aead::Aead(const Secret& key)
    : key_(key.Copy()), context_(::EVP_CIPHER_CTX_new()) {
  Must(context_ != nullptr);
  Must(::EVP_CipherInit_ex(context_, ::EVP_aes_256_gcm(), nullptr,
                           Raw(key_.bytes().data()), nullptr, 1) == 1);
}

Aead::~Aead() { ::EVP_CIPHER_CTX_free(context_); }  // wipes its copy

std::array<std::byte, kTagBytes> Aead::Seal(
    const Nonce& nonce, std::span<const std::byte> associated,
    std::span<std::byte> data) {
  int n = 0;
  Must(::EVP_EncryptInit_ex(context_, nullptr, nullptr,
                            Raw(key_.bytes().data()), Raw(nonce.data())) == 1);
  Must(::EVP_EncryptUpdate(context_, nullptr, &n, Raw(associated.data()),
                           Length(associated.size())) == 1);
  Must(::EVP_EncryptUpdate(context_, Raw(data.data()), &n, Raw(data.data()),
                           Length(data.size())) == 1);
  std::array<unsigned char, EVP_MAX_BLOCK_LENGTH> rest{};
  Must(::EVP_EncryptFinal_ex(context_, rest.data(), &n) == 1);
  std::array<std::byte, kTagBytes> tag{};
  Must(::EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_GET_TAG, kTagBytes,
                             tag.data()) == 1);
  return tag;
}

bool Aead::Open(const Nonce& nonce, std::span<const std::byte> associated,
                std::span<std::byte> data,
                std::span<const std::byte, kTagBytes> tag) {
  int n = 0;
  std::array<std::byte, kTagBytes> wanted{};
  std::copy(tag.begin(), tag.end(), wanted.begin());
  Must(::EVP_DecryptInit_ex(context_, nullptr, nullptr,
                            Raw(key_.bytes().data()), Raw(nonce.data())) == 1);
  Must(::EVP_DecryptUpdate(context_, nullptr, &n, Raw(associated.data()),
                           Length(associated.size())) == 1);
  Must(::EVP_DecryptUpdate(context_, Raw(data.data()), &n, Raw(data.data()),
                           Length(data.size())) == 1);
  Must(::EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_SET_TAG, kTagBytes,
                             wanted.data()) == 1);
  std::array<unsigned char, EVP_MAX_BLOCK_LENGTH> rest{};
  const bool good = ::EVP_DecryptFinal_ex(context_, rest.data(), &n) == 1;
  if (!good) std::fill(data.begin(), data.end(), std::byte{0});
  return good;
}

}  // namespace pos::ckpt
