// Kernels for a SessionClient: modules from PTX text, functions by name,
// launches of one dimension.
//
// Threads: the client's.
#ifndef POS_TESTS_SUPPORT_CLIENT_KERNELS_H_
#define POS_TESTS_SUPPORT_CLIENT_KERNELS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "pos/cuda_impl/api/calls.h"
#include "tests/support/session_client.h"

namespace pos {

// A blob with the text and a zero behind it.
inline std::uint64_t MakeBlob(SessionClient* client, std::string_view text) {
  constexpr std::size_t kPiece = 1000;
  EXPECT_EQ(client->Call(cuda::BlobCreateArgs{.bytes = text.size() + 1}), 0);
  const auto blob = client->Result<cuda::BlobCreateOut>().blob;
  for (std::size_t at = 0; at < text.size(); at += kPiece) {
    const std::string_view part = text.substr(at, kPiece);
    EXPECT_EQ(
        client->Call(
            cuda::BlobPutArgs{.blob = blob, .offset = at, .bytes = part.size()},
            {.inline_data = std::as_bytes(std::span(part))}),
        0);
  }
  return blob;
}

// The call's result; on success `*module`.
inline std::int32_t CallModuleLoad(SessionClient* client,
                                   const SessionClient::Context& context,
                                   std::string_view text,
                                   std::uint64_t* module) {
  const std::uint64_t blob = MakeBlob(client, text);
  const std::int32_t result =
      client->Call(cuda::ModuleLoadArgs{.context = context.id, .blob = blob});
  if (result == 0) *module = client->Result<cuda::ModuleLoadOut>().module;
  return result;
}
inline std::uint64_t LoadModule(SessionClient* client,
                                const SessionClient::Context& context,
                                std::string_view text) {
  std::uint64_t module = 0;
  EXPECT_EQ(CallModuleLoad(client, context, text, &module), 0);
  return module;
}

// The call's result; on success `*function`.
inline std::int32_t CallModuleFunction(SessionClient* client,
                                       std::uint64_t module,
                                       std::string_view name,
                                       std::uint64_t* function) {
  constexpr std::uint32_t kRoom = 4096;  // for what is told of it
  const std::uint32_t lease = client->AwaitLease(kRoom);
  const std::int32_t result =
      client->Call(cuda::ModuleFunctionArgs{.module = module},
                   {.inline_data = std::as_bytes(std::span(name)),
                    .lease = lease,
                    .bulk_bytes = kRoom,
                    .flags = wire::kFrameBulkOut});
  client->leases().Release(&client->ring(), lease);
  if (result == 0) {
    *function = client->Result<cuda::ModuleFunctionOut>().function;
  }
  return result;
}
inline std::uint64_t FindFunction(SessionClient* client, std::uint64_t module,
                                  std::string_view name) {
  std::uint64_t function = 0;
  EXPECT_EQ(CallModuleFunction(client, module, name, &function), 0);
  return function;
}

inline void PostLaunch(SessionClient* client, std::uint64_t stream,
                       std::uint64_t function, std::uint32_t blocks,
                       std::uint32_t threads,
                       std::span<const std::byte> params) {
  client->Post(cuda::LaunchArgs{.stream = stream,
                                .function = function,
                                .grid_x = blocks,
                                .grid_y = 1,
                                .grid_z = 1,
                                .block_x = threads,
                                .block_y = 1,
                                .block_z = 1,
                                .shared_bytes = 0,
                                .cooperative = 0},
               {.inline_data = params});
}

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_CLIENT_KERNELS_H_
