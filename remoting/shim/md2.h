// MD2 (RFC 1319) and HMAC (RFC 2104) over it, for the start-up handshake of
// NVIDIA's runtime and for nothing else: MD2 has been broken for decades, and
// no library that the client may link offers it.
#ifndef REMOTING_SHIM_MD2_H_
#define REMOTING_SHIM_MD2_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pos::shim {

using Md2Digest = std::array<std::uint8_t, 16>;

Md2Digest Md2(std::span<const std::byte> message);
// `key`: 16 bytes, MD2's block size.
Md2Digest HmacMd2(std::span<const std::byte> key,
                  std::span<const std::byte> message);

}  // namespace pos::shim

#endif  // REMOTING_SHIM_MD2_H_
