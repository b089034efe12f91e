// Every field of a frame, swept over its interesting values, for every call:
// ValidateFrame must agree with a second, plainer statement of the rules.
#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "pos/cuda_impl/api/calls.h"
#include "remoting/frontend/front_end.h"

namespace pos {
namespace {

// As wire::FrameHeader, but copyable.
struct Header {
  std::uint32_t commit = 0;
  std::uint16_t op = 0;
  std::uint16_t flags = 0;
  std::uint32_t args_bytes = 0;
  std::uint32_t inline_bytes = 0;
  std::uint32_t slot = wire::kNoSlot;
  std::uint32_t lease = wire::kNoLease;
  std::uint64_t request_id = 0;
  std::uint64_t bulk_bytes = 0;
  std::uint64_t reserved = 0;
};
static_assert(sizeof(Header) == sizeof(wire::FrameHeader));

constexpr RingGeometry kGeometry{.ring_bytes = 1 << 20,
                                 .slot_count = 8,
                                 .staging_bytes = 4 * wire::kLeaseBytes};

std::vector<std::byte> Frame(const Header& header, std::size_t bytes) {
  std::vector<std::byte> frame(bytes);
  if (bytes == 0) return frame;
  std::memcpy(frame.data(), &header, std::min(bytes, sizeof(header)));
  return frame;
}

std::size_t PaddedSize(const Header& header) {
  return (sizeof(Header) + header.args_bytes + header.inline_bytes + 15) / 16 *
         16;
}

Status Validate(const Header& header, std::size_t bytes) {
  return ValidateFrame(Frame(header, bytes), cuda::Calls(), kGeometry);
}

// The rules, one line each.
bool Allowed(const Header& h, std::size_t bytes) {
  const CallTable table = cuda::Calls();
  if (h.op == 0 || h.op >= table.size()) return false;
  const CallInfo& info = table[h.op];
  if (h.args_bytes != info.args_bytes) return false;
  // Header, arguments and payload fill the frame but for its padding.
  const std::uint64_t need =
      sizeof(Header) + std::uint64_t{h.args_bytes} + h.inline_bytes;
  if (need > bytes || bytes - need >= 16) return false;
  const Payload p = info.payload;
  const bool may_inline = p == Payload::kInline || p == Payload::kBulkIn ||
                          p == Payload::kInlineBulkOut;
  if (h.inline_bytes > 0 && !may_inline) return false;
  if (h.reserved != 0) return false;
  switch (h.flags) {
    case 0:
      if (h.lease != wire::kNoLease || h.bulk_bytes != 0) return false;
      break;
    case wire::kFrameBulkIn:
      if (p != Payload::kBulkIn || h.inline_bytes != 0) return false;
      break;
    case wire::kFrameBulkOut:
      if (p != Payload::kBulkOut && p != Payload::kInlineBulkOut) return false;
      break;
    default:
      return false;
  }
  if (h.flags != 0) {
    if (h.lease >= 4) return false;
    if (h.bulk_bytes > (4 - std::uint64_t{h.lease}) * 65536) return false;
  }
  const bool has_slot = h.slot != wire::kNoSlot;
  if (has_slot && h.slot >= 8) return false;
  if (info.reply == ReplyBy::kNobody && has_slot) return false;
  if ((info.reply == ReplyBy::kParser || info.reply == ReplyBy::kWorker) &&
      !has_slot) {
    return false;
  }
  return true;
}

void ExpectAgreement(const Header& h, std::size_t bytes, int* allowed) {
  const Status status = Validate(h, bytes);
  const bool expected = Allowed(h, bytes);
  *allowed += expected ? 1 : 0;
  ASSERT_EQ(status.ok(), expected)
      << "op " << h.op << " flags " << h.flags << " args " << h.args_bytes
      << " inline " << h.inline_bytes << " slot " << h.slot << " lease "
      << h.lease << " bulk " << h.bulk_bytes << " frame " << bytes << ": "
      << status.ToString();
  if (!expected) {
    ASSERT_EQ(status.code(), Code::kProto);
    ASSERT_FALSE(status.message().empty());
  }
}

TEST(ValidateFrame, AgreesWithThePlainRulesForEveryCallAndField) {
  const CallTable table = cuda::Calls();
  int allowed = 0;
  for (std::size_t op = 0; op <= table.size(); ++op) {
    const std::uint32_t args = op < table.size() ? table[op].args_bytes : 0;
    for (const std::uint16_t flags :
         std::initializer_list<std::uint16_t>{0, 1, 2, 3, 4, 0x8000}) {
      for (const std::uint32_t inline_bytes : {0u, 1u, 15u, 16u, 17u, 8192u}) {
        for (const std::uint32_t slot : {0u, 7u, 8u, 0xfffffffeu, ~0u}) {
          for (const std::uint32_t lease : {0u, 3u, 4u, 0xfffffffeu, ~0u}) {
            for (const std::uint64_t bulk :
                 std::initializer_list<std::uint64_t>{0, 1, 65536, 65537,
                                                      4 * 65536, 4 * 65536 + 1,
                                                      1ull << 63, ~0ull}) {
              Header h;
              h.op = static_cast<std::uint16_t>(op);
              h.flags = flags;
              h.args_bytes = args;
              h.inline_bytes = inline_bytes;
              h.slot = slot;
              h.lease = lease;
              h.bulk_bytes = bulk;
              ASSERT_NO_FATAL_FAILURE(
                  ExpectAgreement(h, PaddedSize(h), &allowed));
            }
          }
        }
      }
    }
  }
  EXPECT_GT(allowed, 200) << "the sweep hardly met a valid frame";
}

TEST(ValidateFrame, SizesThatDoNotAddUpAreRefused) {
  const CallTable table = cuda::Calls();
  int allowed = 0;
  for (std::size_t op = 1; op < table.size(); ++op) {
    const CallInfo& info = table[op];
    for (const std::uint32_t args :
         {0u, 1u, info.args_bytes - 1, info.args_bytes, info.args_bytes + 1,
          0x7fffffffu, 0xffffffffu}) {
      for (const std::uint32_t inline_bytes :
           {0u, 1u, 100u, 0x7fffffffu, 0xffffff00u, 0xffffffffu}) {
        Header h;
        h.op = static_cast<std::uint16_t>(op);
        h.args_bytes = args;
        h.inline_bytes = inline_bytes;
        if (info.reply != ReplyBy::kNobody) h.slot = 0;
        for (std::size_t bytes = 0; bytes <= 256; bytes += 8) {
          ASSERT_NO_FATAL_FAILURE(ExpectAgreement(h, bytes, &allowed));
        }
      }
    }
  }
  EXPECT_GT(allowed, 30);
}

TEST(ValidateFrame, ReservedWordMustBeZero) {
  Header h;
  h.op = 1;
  h.slot = 0;
  int allowed = 0;
  ExpectAgreement(h, PaddedSize(h), &allowed);
  EXPECT_EQ(allowed, 1);
  for (int bit = 0; bit < 64; ++bit) {
    h.reserved = 1ull << bit;
    ExpectAgreement(h, PaddedSize(h), &allowed);
  }
  EXPECT_EQ(allowed, 1);
}

TEST(ValidateFrame, ReasonNamesTheCallAndTheNumbers) {
  Header h;
  h.op = static_cast<std::uint16_t>(cuda::Op::kMemFree);
  h.slot = 0;
  h.args_bytes = 12;
  const Status status = Validate(h, PaddedSize(h));
  EXPECT_NE(status.message().find("MemFree"), std::string::npos);
  EXPECT_NE(status.message().find("12"), std::string::npos);
  EXPECT_NE(status.message().find("8"), std::string::npos);
}

}  // namespace
}  // namespace pos
