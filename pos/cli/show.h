// What commands print for people. Everything that comes from elsewhere is made
// printable: nobody's file name steers the terminal.
//
// Test: tests/pos/cli/show_test.cc
#ifndef POS_CLI_SHOW_H_
#define POS_CLI_SHOW_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "pos/base/status.h"
#include "pos/daemon/pos.pb.h"

namespace pos::cli {

// Of a table in an image's description, Show has this many rows.
inline constexpr std::size_t kShownTableRows = 20;
// Of the jobs that ended, Show lists this many and counts the others.
inline constexpr std::size_t kShownEndedJobs = 10;

// "pos-cli: MESSAGE" and, when there is one, "hint: HINT", in lines.
[[nodiscard]] std::string ShowError(const Status& status);
// Living jobs, then the latest that ended. `owners`: with their names.
[[nodiscard]] std::string Show(const v1::PsReply& reply, std::uint64_t now_ms,
                               bool owners);
[[nodiscard]] std::string ShowStopped(const std::string& job,
                                      const v1::StopReply& reply);
[[nodiscard]] std::string Show(const v1::DevicesReply& reply);
[[nodiscard]] std::string Show(const v1::CheckReply& reply);
[[nodiscard]] std::string Show(const v1::CheckpointResult& result,
                               bool stopped);
[[nodiscard]] std::string Show(const v1::RestoreResult& result);
[[nodiscard]] std::string Show(const v1::ListImagesReply& reply);
[[nodiscard]] std::string ShowVerified(const std::string& image,
                                       const v1::VerifyResult& result);
[[nodiscard]] std::string Show(const v1::DiffImagesReply& reply);
[[nodiscard]] std::string Show(const v1::CollectGarbageReply& reply);
[[nodiscard]] std::string Show(const v1::ImportResult& result);
[[nodiscard]] std::string ShowSeries(const v1::SetSeriesRequest& request);
// posd's JSON object as aligned lines. kProto when it is none.
[[nodiscard]] Result<std::string> Show(const v1::ShowImageReply& reply);

}  // namespace pos::cli

#endif  // POS_CLI_SHOW_H_
