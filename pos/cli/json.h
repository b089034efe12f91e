// What --json prints: one object on one line, with the field names that users'
// scripts rely on. Times in milliseconds, sizes in bytes, absent values null.
//
// The one place of pos-cli's that includes nlohmann-json, with show_image.cc.
//
// Test: tests/pos/cli/json_test.cc
#ifndef POS_CLI_JSON_H_
#define POS_CLI_JSON_H_

#include <string>
#include <string_view>

#include "pos/base/status.h"
#include "pos/daemon/pos.pb.h"

namespace pos::cli {

[[nodiscard]] std::string ErrorJson(const Status& status);
[[nodiscard]] std::string ToJson(const v1::RunReply& reply);
[[nodiscard]] std::string ToJson(const v1::PsReply& reply);
[[nodiscard]] std::string LogsJson(const std::string& job,
                                   std::string_view output);
[[nodiscard]] std::string WaitJson(const std::string& job,
                                   const v1::WaitReply& reply);
[[nodiscard]] std::string StopJson(const std::string& job,
                                   const v1::StopReply& reply);
[[nodiscard]] std::string ToJson(const v1::DevicesReply& reply);
// `status`: not OK when a check is not passed; then it is part of the object.
[[nodiscard]] std::string CheckJson(const v1::CheckReply& reply,
                                    const Status& status);
[[nodiscard]] std::string ToJson(const v1::CheckpointResult& result);
[[nodiscard]] std::string ToJson(const v1::RestoreResult& result);
[[nodiscard]] std::string ToJson(const v1::ListImagesReply& reply);
// posd's object on one line. kProto when it is none.
[[nodiscard]] Result<std::string> ToJson(const v1::ShowImageReply& reply);
// `status` as for CheckJson: not OK when the image is not whole.
[[nodiscard]] std::string VerifyJson(const std::string& image,
                                     const v1::VerifyResult& result,
                                     const Status& status);
[[nodiscard]] std::string RemovedJson(const std::string& image);
[[nodiscard]] std::string DiffJson(const v1::DiffImagesRequest& request,
                                   const v1::DiffImagesReply& reply);
[[nodiscard]] std::string ToJson(const v1::CollectGarbageReply& reply);
[[nodiscard]] std::string ExportedJson(const std::string& image,
                                       const std::string& file,
                                       const v1::ExportResult& result);
[[nodiscard]] std::string ToJson(const v1::ImportResult& result);
[[nodiscard]] std::string SeriesJson(const v1::SetSeriesRequest& request);

// "running", "in-doubt", …; "unknown" for a state of a newer posd's.
[[nodiscard]] std::string_view StateName(v1::JobState state);

}  // namespace pos::cli

#endif  // POS_CLI_JSON_H_
