#include "pos/cli/trace_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "pos/base/files.h"

namespace pos::cli {
namespace {

using Json = nlohmann::ordered_json;

// Everything is one "process" of the trace.
constexpr int kProcess = 1;

Json Named(const char* what, std::uint64_t row, const std::string& name) {
  return {{"ph", "M"},
          {"name", what},
          {"pid", kProcess},
          {"tid", row},
          {"args", {{"name", name}}}};
}

}  // namespace

std::string TraceJson(const std::string& title, const TraceEvents& events) {
  Json list = Json::array();
  list.push_back(Named("process_name", 0, title));
  list.push_back(Named("thread_name", 0, "phases"));
  std::set<std::uint64_t> sessions;
  for (const v1::TraceEvent& event : events) {
    if (event.session() == 0 || !sessions.insert(event.session()).second) {
      continue;
    }
    list.push_back(Named("thread_name", event.session(),
                         "session " + std::to_string(event.session())));
  }
  for (const v1::TraceEvent& event : events) {
    Json args = Json::object();
    if (event.bytes() != 0) args["bytes"] = event.bytes();
    list.push_back({{"ph", "X"},
                    {"name", event.name()},
                    {"pid", kProcess},
                    {"tid", event.session()},
                    {"ts", event.begin_us()},
                    {"dur", event.duration_us()},
                    {"args", std::move(args)}});
  }
  const Json trace{{"traceEvents", std::move(list)}, {"displayTimeUnit", "ms"}};
  return trace.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<UniqueFd> OpenTrace(const std::string& path) {
  if (path.empty()) return UniqueFd();
  return OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
}

Status WriteTrace(int fd, const std::string& path, const std::string& title,
                  const TraceEvents& events) {
  if (fd < 0) return {};
  const std::string text = TraceJson(title, events);
  return WriteFull(fd, std::as_bytes(std::span(text)), path);
}

}  // namespace pos::cli
