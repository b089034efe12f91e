// What a checkpoint or restore spent its time with, as a trace that Chrome
// (chrome://tracing) and Perfetto (ui.perfetto.dev) show: one row for the
// operation, one for each session.
//
// Format: "Trace Event Format", JSON object form; times in microseconds since
// the request.
//
// Test: tests/pos/cli/trace_file_test.cc
#ifndef POS_CLI_TRACE_FILE_H_
#define POS_CLI_TRACE_FILE_H_

#include <string>

#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/daemon/pos.pb.h"

namespace pos::cli {

using TraceEvents = google::protobuf::RepeatedPtrField<v1::TraceEvent>;

[[nodiscard]] std::string TraceJson(const std::string& title,
                                    const TraceEvents& events);
// Before the work is begun, so that a file that cannot be written costs
// nothing. No descriptor when `path` is empty.
Result<UniqueFd> OpenTrace(const std::string& path);
Status WriteTrace(int fd, const std::string& path, const std::string& title,
                  const TraceEvents& events);

}  // namespace pos::cli

#endif  // POS_CLI_TRACE_FILE_H_
