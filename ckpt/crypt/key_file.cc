#include "ckpt/crypt/key_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "pos/base/fd.h"
#include "pos/base/files.h"

namespace pos::ckpt {
namespace {

constexpr std::size_t kHexDigits = 2 * kSecretBytes;
constexpr const char* kHow =
    "make one with `umask 077; head -c 32 /dev/urandom >FILE`";

std::optional<unsigned> DigitOf(std::byte byte) {
  const auto c = static_cast<char>(byte);
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A' + 10);
  return std::nullopt;
}

bool FromHex(std::span<const std::byte> text, Secret* secret) {
  for (std::size_t i = 0; i < kSecretBytes; ++i) {
    const auto high = DigitOf(text[2 * i]);
    const auto low = DigitOf(text[2 * i + 1]);
    if (!high || !low) return false;
    secret->writable()[i] = static_cast<std::byte>(*high << 4 | *low);
  }
  return true;
}

Status CheckPrivate(int fd, const std::string& path) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) return ErrnoStatus(errno, path);
  if (!S_ISREG(st.st_mode)) return Invalid(path + " is no regular file");
  if (st.st_uid != 0 && st.st_uid != ::geteuid()) {
    return Denied(
        "the key file " + path + " belongs to uid " + std::to_string(st.st_uid),
        "it has to be root's, or of who runs posd");
  }
  if ((st.st_mode & 077) != 0) {
    return Denied("others may use the key file " + path, "chmod 600 " + path);
  }
  return {};
}

}  // namespace

Result<Secret> ReadKeyFile(const std::string& path) {
  POS_ASSIGN_OR_RETURN(const UniqueFd fd,
                       OpenFile(path, O_RDONLY | O_NONBLOCK));
  POS_RETURN_IF_ERROR(CheckPrivate(fd.get(), path));
  std::array<std::byte, kHexDigits + 3> text{};
  std::size_t size = 0;
  Status status;
  while (size < text.size()) {
    const Result<std::size_t> n =
        ReadSome(fd.get(), std::span(text).subspan(size), path);
    status = n.status();
    if (!n.ok() || *n == 0) break;
    size += *n;
  }
  Secret secret;
  bool good = status.ok();
  if (good && size == kSecretBytes) {
    std::copy_n(text.begin(), kSecretBytes, secret.writable().begin());
  } else if (good) {
    while (size > 0 && (text[size - 1] == std::byte{'\n'} ||
                        text[size - 1] == std::byte{'\r'})) {
      --size;
    }
    good = size == kHexDigits && FromHex(text, &secret);
  }
  Wipe(text);
  POS_RETURN_IF_ERROR(status);
  if (!good) {
    return Invalid("the key file " + path +
                       " holds neither 32 bytes nor 64 hexadecimal digits",
                   kHow);
  }
  return secret;
}

}  // namespace pos::ckpt
