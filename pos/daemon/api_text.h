// Text on the control plane: errors, and strings that have to be UTF-8.
//
// A proto3 `string` that is not UTF-8 makes the receiver refuse the whole
// message. Paths, arguments and other programs' words are bytes, so what posd
// answers is made UTF-8 on its way out.
//
// Test: tests/pos/daemon/api_text_test.cc
#ifndef POS_DAEMON_API_TEXT_H_
#define POS_DAEMON_API_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "pos/base/status.h"
#include "pos/daemon/pos.pb.h"

namespace pos {

// HTTP/2 peers accept 8 KiB of trailing headers (gRPC's default), in which an
// error travels base64-encoded. An error of that size still fits.
inline constexpr std::size_t kMaxErrorMessageBytes = 3000;
inline constexpr std::size_t kMaxErrorHintBytes = 600;

[[nodiscard]] bool IsUtf8(std::string_view text);
// `text` with every byte that is not part of UTF-8 replaced by U+FFFD.
[[nodiscard]] std::string ToUtf8(std::string_view text);
// At most `limit` bytes (at least 3) of a UTF-8 text; "…" at the end says that
// some is missing.
[[nodiscard]] std::string Shorten(std::string text, std::size_t limit);

// Every `string` in `message`, whatever its depth.
void MakeUtf8(google::protobuf::Message* message);

// Only of an error. Shortened and made UTF-8.
[[nodiscard]] v1::Error ToError(const Status& status);
[[nodiscard]] Status FromError(const v1::Error& error);

}  // namespace pos

#endif  // POS_DAEMON_API_TEXT_H_
