#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "ckpt/crypt/aead.h"
#include "ckpt/crypt/key_file.h"
#include "ckpt/crypt/secret.h"
#include "pos/base/bytes.h"
#include "pos/base/files.h"
#include "tests/ckpt/testing.h"

namespace pos::ckpt {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::byte> FromHex(const std::string& text) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    bytes.push_back(
        static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

Secret SecretOf(const std::string& hex) {
  const std::vector<std::byte> bytes = FromHex(hex);
  return Secret(std::span<const std::byte, kSecretBytes>(bytes));
}

// NIST's test vectors for GCM: case 14 of "The Galois/Counter Mode of
// Operation" (256-bit key of zeros, 16 bytes of zeros).
TEST(Aead, IsAes256Gcm) {
  Aead aead(Secret{});
  std::vector<std::byte> data(16);
  const auto tag = aead.Seal(Nonce{}, {}, data);
  EXPECT_EQ(HexBytes(data), "cea7403d4d606b6e074ec5d3baf39d18");
  EXPECT_EQ(HexBytes(tag), "d0d1c8a799996bf0265b98b5d48ab919");
}

TEST(Aead, OpensNothingThatWasChanged) {
  const Secret key = RandomSecret();
  Aead aead(key);
  const std::vector<std::byte> plain = FromHex("00112233445566778899");
  const std::vector<std::byte> associated = FromHex("a0a1a2");
  const Nonce nonce = MakeNonce(1, 2);
  std::vector<std::byte> sealed = plain;
  const auto tag = aead.Seal(nonce, associated, sealed);
  EXPECT_NE(sealed, plain);
  auto opens =
      [&](const Nonce& n, std::vector<std::byte> a, std::vector<std::byte> s,
          std::array<std::byte, kTagBytes> t) { return aead.Open(n, a, s, t); };
  EXPECT_TRUE(opens(nonce, associated, sealed, tag));
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    std::vector<std::byte> bad = sealed;
    bad[i] ^= std::byte{1};
    EXPECT_FALSE(opens(nonce, associated, bad, tag));
  }
  for (std::size_t i = 0; i < tag.size(); ++i) {
    auto bad = tag;
    bad[i] ^= std::byte{0x80};
    EXPECT_FALSE(opens(nonce, associated, sealed, bad));
  }
  EXPECT_FALSE(opens(MakeNonce(2, 2), associated, sealed, tag));
  EXPECT_FALSE(opens(MakeNonce(1, 3), associated, sealed, tag));
  EXPECT_FALSE(opens(nonce, FromHex("a0a1a3"), sealed, tag));
  EXPECT_FALSE(opens(nonce, {}, sealed, tag));
  Aead other(RandomSecret());
  std::vector<std::byte> again = sealed;
  EXPECT_FALSE(other.Open(nonce, associated, again, tag));
  EXPECT_EQ(again, std::vector<std::byte>(sealed.size()));
  again = sealed;
  ASSERT_TRUE(aead.Open(nonce, associated, again, tag));
  EXPECT_EQ(again, plain);
}

// RFC 4231, test case 4 has a key of 25 bytes; ours have 32, so the value was
// computed with Python's hmac module.
TEST(Mac, IsHmacSha256) {
  Mac mac(SecretOf(std::string(64, 'b')));
  mac.Update(std::as_bytes(std::span("Hi ", 3)));
  mac.Update(std::as_bytes(std::span("There", 5)));
  EXPECT_EQ(HexBytes(mac.Finish()),
            "49be1e42c500ca03cb6ea6f770e85c9faeebffd30ea178e05cecab7a4468d39b");
}

// Computed with an HKDF after RFC 5869 on Python's hmac module.
TEST(Derive, IsHkdfSha256) {
  const Secret key = SecretOf(std::string(64, 'b'));
  EXPECT_EQ(HexBytes(Derive(key, FromHex("000102"), "use").bytes()),
            "9832d7565108e2ce6772bf449b274b0349ecf739f43a29eb9845a48ea31c87e8");
  EXPECT_EQ(HexBytes(IdOf(key)), "d58ac35724ea9d9bc4d426155da41f20");
}

TEST(Derive, KeysOfDifferentUsesDiffer) {
  const Secret key = RandomSecret();
  const std::string one = HexBytes(Derive(key, {}, "one").bytes());
  EXPECT_EQ(one, HexBytes(Derive(key, {}, "one").bytes()));
  EXPECT_NE(one, HexBytes(Derive(key, {}, "two").bytes()));
  EXPECT_NE(one, HexBytes(Derive(key, FromHex("01"), "one").bytes()));
  EXPECT_NE(one, HexBytes(Derive(RandomSecret(), {}, "one").bytes()));
}

TEST(Secret, IsGoneFromWhereItWasMovedFrom) {
  Secret a = SecretOf(std::string(64, 'c'));
  const Secret b = std::move(a);
  EXPECT_EQ(HexBytes(b.bytes()), std::string(64, 'c'));
  EXPECT_EQ(HexBytes(a.bytes()), std::string(64, '0'));  // NOLINT: that is it
}

class KeyFileTest : public ::testing::Test {
 protected:
  KeyFileTest() : dir_("key") {}
  std::string Write(const std::string& content, mode_t mode = 0600) {
    const std::string path = dir_ / "key";
    RemoveFile(path).IgnoreError();
    EXPECT_TRUE(ReplaceFile(path, content, mode).ok());
    EXPECT_EQ(::chmod(path.c_str(), mode), 0);
    return path;
  }
  TestDir dir_;
};

TEST_F(KeyFileTest, HoldsBytesOrDigits) {
  const std::string digits =
      "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100";
  const std::string wanted =
      "00112233445566778899aabbccddeeffffeeddccbbaa99887766554433221100";
  for (const std::string& text : {digits, digits + "\n", digits + "\r\n"}) {
    const auto key = ReadKeyFile(Write(text));
    ASSERT_TRUE(key.ok()) << key.status().ToString();
    EXPECT_EQ(HexBytes(key->bytes()), wanted);
  }
  std::string raw;
  for (const std::byte b : FromHex(wanted)) raw += static_cast<char>(b);
  const auto key = ReadKeyFile(Write(raw));
  ASSERT_TRUE(key.ok());
  EXPECT_EQ(HexBytes(key->bytes()), wanted);
}

TEST_F(KeyFileTest, RefusesEverythingElseWithoutShowingIt) {
  for (std::size_t size = 0; size < 70; ++size) {
    if (size == 32 || size == 64) continue;
    SCOPED_TRACE(size);
    const auto key = ReadKeyFile(Write(std::string(size, 'a')));
    EXPECT_EQ(key.status().code(), Code::kInvalid);
    EXPECT_THAT(key.status().ToString(), Not(HasSubstr("aaaa")));
  }
  EXPECT_EQ(ReadKeyFile(Write(std::string(64, 'g'))).status().code(),
            Code::kInvalid);
  EXPECT_EQ(ReadKeyFile(dir_ / "none").status().code(), Code::kNoSuch);
  EXPECT_EQ(ReadKeyFile(dir_ / ".").status().code(), Code::kInvalid);
}

TEST_F(KeyFileTest, IsItsOwnersAlone) {
  for (const mode_t mode : {0640u, 0604u, 0620u, 0602u, 0644u, 0610u}) {
    const auto key = ReadKeyFile(Write(std::string(32, 'k'), mode));
    EXPECT_EQ(key.status().code(), Code::kDenied) << mode;
  }
  EXPECT_TRUE(ReadKeyFile(Write(std::string(32, 'k'), 0400)).ok());
}

}  // namespace
}  // namespace pos::ckpt
