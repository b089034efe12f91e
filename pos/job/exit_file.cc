#include "pos/job/exit_file.h"

#include <sys/wait.h>

#include <array>
#include <nlohmann/json.hpp>

#include "pos/base/clock.h"
#include "pos/base/files.h"

namespace pos::job {
namespace {

constexpr const char* kExitFile = "exit.json";

struct ReasonRow {
  ProgramEnded::Reason reason;
  const char* name;
};
constexpr std::array<ReasonRow, 5> kReasons = {{
    {ProgramEnded::EXITED, "exited"},
    {ProgramEnded::SIGNALED, "signaled"},
    {ProgramEnded::DUMPED, "dumped"},
    {ProgramEnded::START_FAILED, "start-failed"},
    {ProgramEnded::LOST, "lost"},
}};

std::string ReasonName(ProgramEnded::Reason reason) {
  for (const ReasonRow& row : kReasons) {
    if (row.reason == reason) return row.name;
  }
  return "lost";
}

}  // namespace

Status WriteExitFile(const std::string& directory, const ProgramEnded& ended) {
  nlohmann::ordered_json json;
  json["reason"] = ReasonName(ended.reason());
  json["exit_code"] = ended.exit_code();
  if (ended.signal() != 0) {
    json["signal"] = ended.signal();
  } else {
    json["signal"] = nullptr;
  }
  json["core_dumped"] = ended.core_dumped();
  json["ended_at"] = ended.ended_at_ms();
  json["message"] = ended.message();
  // Bytes that are not UTF-8 are replaced: a path may be in the message.
  const std::string text = json.dump(
      -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return ReplaceFile(JoinPath(directory, kExitFile), text + "\n");
}

Result<ProgramEnded> ReadExitFile(const std::string& directory) {
  const std::string path = JoinPath(directory, kExitFile);
  POS_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path, 1 << 20));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  const auto number = [&json](const char* key) -> std::int64_t {
    const auto it = json.find(key);
    return it != json.end() && it->is_number_integer() ? it->get<std::int64_t>()
                                                       : 0;
  };
  if (!json.is_object() || !json.contains("reason") ||
      !json["reason"].is_string()) {
    return Corrupt(path + " is not an exit file");
  }
  ProgramEnded ended;
  ended.set_reason(ProgramEnded::LOST);
  for (const ReasonRow& row : kReasons) {
    if (json["reason"] == row.name) ended.set_reason(row.reason);
  }
  ended.set_exit_code(static_cast<int>(number("exit_code")));
  ended.set_signal(static_cast<int>(number("signal")));
  ended.set_core_dumped(json.contains("core_dumped") &&
                        json["core_dumped"] == true);
  ended.set_ended_at_ms(static_cast<std::uint64_t>(number("ended_at")));
  if (json.contains("message") && json["message"].is_string()) {
    ended.set_message(json["message"].get<std::string>());
  }
  return ended;
}

ProgramEnded EndedFromWait(int wait_status) {
  ProgramEnded ended;
  ended.set_ended_at_ms(WallClockMs());
  if (WIFSIGNALED(wait_status)) {
    ended.set_reason(ProgramEnded::SIGNALED);
    ended.set_signal(WTERMSIG(wait_status));
    ended.set_exit_code(128 + WTERMSIG(wait_status));
    ended.set_core_dumped(WCOREDUMP(wait_status));
  } else {
    ended.set_reason(ProgramEnded::EXITED);
    ended.set_exit_code(WEXITSTATUS(wait_status));
  }
  return ended;
}

}  // namespace pos::job
