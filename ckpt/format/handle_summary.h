// What handles a session has, in brief: for `pos-cli images show`, so that
// nobody has to understand a session's state to say what takes space in it.
// ckpt/FORMAT.md, "Blobs".
//
// Threads: values.
//
// Test: tests/ckpt/format/handle_summary_test.cc
#ifndef CKPT_FORMAT_HANDLE_SUMMARY_H_
#define CKPT_FORMAT_HANDLE_SUMMARY_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pos/base/status.h"

namespace pos::ckpt {

// The name of the blob.
inline constexpr const char* kHandlesBlob = "handles";
inline constexpr std::size_t kMaxHandlesBlobBytes = 1u << 20;
inline constexpr std::size_t kMaxHandleKinds = 256;
inline constexpr std::size_t kMaxLargestHandles = 1024;

struct HandleKindUse {
  std::string kind;
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;  // of what making them again takes

  friend bool operator==(const HandleKindUse&, const HandleKindUse&) = default;
};

struct HandleUse {
  std::string kind;
  std::uint64_t handle = 0;
  std::uint64_t parent = 0;  // 0: none
  std::uint64_t bytes = 0;

  friend bool operator==(const HandleUse&, const HandleUse&) = default;
};

struct HandleSummary {
  std::vector<HandleKindUse> kinds;
  std::vector<HandleUse> largest;

  friend bool operator==(const HandleSummary&, const HandleSummary&) = default;
};

[[nodiscard]] std::vector<std::byte> EncodeHandleSummary(
    const HandleSummary& summary);
// kCorrupt for anything that EncodeHandleSummary does not write.
Result<HandleSummary> DecodeHandleSummary(std::span<const std::byte> bytes);

}  // namespace pos::ckpt

#endif  // CKPT_FORMAT_HANDLE_SUMMARY_H_
