#include "pos/cli/show.h"

#include <pwd.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "pos/cli/json.h"
#include "pos/cli/text.h"

namespace pos::cli {
namespace {

using Align = Table::Align;

bool HasEnded(const v1::Job& job) {
  return job.state() == v1::EXITED || job.state() == v1::FAILED ||
         job.state() == v1::STOPPED;
}

std::string UserName(uid_t uid) {
  passwd entry{};
  passwd* found = nullptr;
  std::array<char, 4096> buffer{};
  if (::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) == 0 &&
      found != nullptr) {
    return found->pw_name;
  }
  return std::to_string(uid);
}

std::string StateCell(const v1::Job& job) {
  std::string text(StateName(job.state()));
  if (HasEnded(job) && job.has_exit_code()) {
    text += " (" + std::to_string(job.exit_code()) + ")";
  }
  return text;
}

std::string Joined(const google::protobuf::RepeatedPtrField<std::string>& parts,
                   const char* separator) {
  std::string text;
  for (const std::string& part : parts) {
    text += (text.empty() ? "" : separator) + part;
  }
  return text;
}

// A command line of any length in a table.
std::string CommandCell(const std::string& command) {
  constexpr std::size_t kMost = 60;
  if (TextWidth(command) <= kMost) return command;
  std::size_t bytes = 0;
  std::size_t width = 0;
  while (width < kMost - 3) {
    ++bytes;
    while (bytes < command.size() &&
           (static_cast<unsigned char>(command[bytes]) & 0xc0u) == 0x80u) {
      ++bytes;
    }
    ++width;
  }
  return command.substr(0, bytes) + "...";
}

// Living jobs by their start, then those that ended, the latest first.
std::vector<const v1::Job*> Ordered(const v1::PsReply& reply) {
  std::vector<const v1::Job*> jobs;
  for (const v1::Job& job : reply.jobs()) jobs.push_back(&job);
  std::stable_sort(jobs.begin(), jobs.end(),
                   [](const v1::Job* a, const v1::Job* b) {
                     if (HasEnded(*a) != HasEnded(*b)) return HasEnded(*b);
                     return HasEnded(*a) ? a->started_at() > b->started_at()
                                         : a->started_at() < b->started_at();
                   });
  return jobs;
}

std::string Line(const std::string& label, const std::string& value) {
  constexpr std::size_t kLabel = 15;
  return label + std::string(kLabel - label.size(), ' ') + value + "\n";
}

}  // namespace

std::string ShowError(const Status& status) {
  std::string text = "pos-cli: " + PrintableLines(status.message()) + "\n";
  if (!status.hint().empty()) {
    text += "hint: " + PrintableLines(status.hint()) + "\n";
  }
  return text;
}

namespace {

std::string SeriesLine(const v1::Job& job, std::uint64_t now_ms) {
  const v1::Series& series = job.series();
  const std::uint64_t left_ms =
      series.next_at() > now_ms ? series.next_at() - now_ms : 0;
  std::string text = Printable(job.job()) + ": a checkpoint every " +
                     FormatDuration(series.every_ms() * 1000) + ", next in " +
                     FormatDuration(left_ms * 1000);
  if (!series.last_image().empty()) {
    text += ", last " + Printable(series.last_image());
  }
  if (!series.last_error().empty()) {
    text += "; the last one failed: " + Printable(series.last_error());
  }
  return text + "\n";
}

}  // namespace

std::string Show(const v1::PsReply& reply, std::uint64_t now_ms, bool owners) {
  std::vector<Table::Column> columns = {{"JOB"}};
  if (owners) columns.push_back({"USER"});
  columns.insert(columns.end(), {{"STATE"},
                                 {"PID", Align::kRight},
                                 {"DEVICES"},
                                 {"SESSIONS", Align::kRight},
                                 {"DEVICE MEMORY", Align::kRight},
                                 {"STARTED", Align::kRight},
                                 {"COMMAND"}});
  Table table(std::move(columns));
  std::size_t ended = 0;
  for (const v1::Job* job : Ordered(reply)) {
    if (HasEnded(*job) && ++ended > kShownEndedJobs) continue;
    std::uint64_t device_bytes = 0;
    for (const v1::Session& session : job->sessions()) {
      device_bytes += session.device_bytes();
    }
    std::vector<std::string> cells = {job->job()};
    if (owners) cells.push_back(UserName(job->uid()));
    const std::string age = FormatAge(job->started_at(), now_ms);
    cells.insert(
        cells.end(),
        {StateCell(*job), job->pid() == 0 ? "" : std::to_string(job->pid()),
         Joined(job->devices(), ","), std::to_string(job->sessions_size()),
         job->sessions().empty() ? "" : FormatBytes(device_bytes),
         age == "-" ? age : age + " ago", CommandCell(job->command())});
    table.AddRow(std::move(cells));
  }
  std::string text = table.Render();
  if (ended > kShownEndedJobs) {
    text += std::to_string(ended - kShownEndedJobs) +
            " more have ended (--json lists all)\n";
  }
  for (const v1::Job* job : Ordered(reply)) {
    if (job->has_series()) text += SeriesLine(*job, now_ms);
  }
  return text;
}

std::string ShowStopped(const std::string& job, const v1::StopReply& reply) {
  std::string text = Printable(job);
  if (reply.rung().empty()) {
    text += " had ended";
  } else {
    text += " ended";
    if (reply.rung() != "asked") text += " after " + Printable(reply.rung());
  }
  return text + ", exit status " + std::to_string(reply.exit_code()) + "\n";
}

std::string Show(const v1::DevicesReply& reply) {
  Table table({{"DEVICE"},
               {"KIND"},
               {"NAME"},
               {"MEMORY", Align::kRight},
               {"FREE", Align::kRight},
               {"STATE"},
               {"SESSIONS", Align::kRight}});
  for (const v1::Device& device : reply.devices()) {
    table.AddRow({device.device(), device.kind(), device.name(),
                  FormatBytes(device.memory_bytes()),
                  FormatBytes(device.free_bytes()), device.state(),
                  std::to_string(device.sessions())});
  }
  return table.Render();
}

std::string Show(const v1::CheckReply& reply) {
  Table table({{"CHECK"}, {"RESULT"}, {"DETAIL"}});
  for (const v1::CheckResult& check : reply.checks()) {
    table.AddRow({check.name(), check.ok() ? "ok" : "FAILED", check.detail()});
  }
  return table.Render();
}

std::string Show(const v1::CheckpointResult& result, bool stopped) {
  const std::string reason =
      result.reason().empty() ? "" : " (" + Printable(result.reason()) + ")";
  std::string text = Line("image", Printable(result.image()));
  text += Line("mode", Printable(result.mode()) + reason);
  text += Line(stopped ? "stopped after" : "stall",
               FormatDuration(result.stall_us()) + ", CPU dump " +
                   FormatDuration(result.cpu_dump_us()) + " of it");
  text += Line("total", FormatDuration(result.total_us()));
  text += Line("device memory",
               FormatBytes(result.live_bytes()) + " live, " +
                   FormatBytes(result.copied_bytes()) + " copied in " +
                   std::to_string(result.chunks()) + " chunks");
  text += Line("written", FormatBytes(result.written_bytes()));
  return text;
}

std::string Show(const v1::RestoreResult& result) {
  std::string text = Line("job", Printable(result.job()));
  text += Line("pid", std::to_string(result.pid()));
  text += Line("first call", "after " + FormatDuration(result.restore_us()));
  text += Line("all loaded", "after " + FormatDuration(result.loaded_us()));
  return text;
}

std::string Show(const v1::ListImagesReply& reply) {
  const bool damage = std::any_of(
      reply.images().begin(), reply.images().end(),
      [](const v1::Image& image) { return !image.damage().empty(); });
  std::vector<Table::Column> columns = {{"IMAGE"},
                                        {"JOB"},
                                        {"CREATED"},
                                        {"MODE"},
                                        {"DEVICE MEMORY", Align::kRight},
                                        {"STORED", Align::kRight},
                                        {"TAG"}};
  if (damage) columns.push_back({"DAMAGE"});
  Table table(std::move(columns));
  for (const v1::Image& image : reply.images()) {
    std::vector<std::string> cells = {image.image(),
                                      image.job(),
                                      FormatTime(image.created_at()),
                                      image.mode(),
                                      FormatBytes(image.live_bytes()),
                                      FormatBytes(image.stored_bytes()),
                                      image.tag()};
    if (damage) cells.push_back(image.damage());
    table.AddRow(std::move(cells));
  }
  return table.Render();
}

std::string ShowVerified(const std::string& image,
                         const v1::VerifyResult& result) {
  std::string text = Printable(image) + ": " + std::to_string(result.files()) +
                     " files, " + std::to_string(result.chunks()) +
                     " chunks, " + FormatBytes(result.bytes()) + " read, ";
  if (result.problems() == 0) return text + "no problems\n";
  text += std::to_string(result.problems()) + " problems\n";
  for (const std::string& problem : result.first_problems()) {
    text += "  " + Printable(problem) + "\n";
  }
  const auto shown = static_cast<std::uint64_t>(result.first_problems_size());
  if (result.problems() > shown) {
    text += "  and " + std::to_string(result.problems() - shown) + " more\n";
  }
  return text;
}

std::string Show(const v1::DiffImagesReply& reply) {
  std::string text = Line("same", FormatBytes(reply.same_bytes()));
  text += Line("changed", FormatBytes(reply.changed_bytes()));
  text += Line("only in A", FormatBytes(reply.only_a_bytes()));
  text += Line("only in B", FormatBytes(reply.only_b_bytes()));
  for (const std::string& difference : reply.differences()) {
    text += Printable(difference) + "\n";
  }
  return text;
}

std::string Show(const v1::CollectGarbageReply& reply) {
  std::string text = FormatBytes(reply.freed_bytes()) +
                     " freed: " + std::to_string(reply.removed_images()) +
                     " removed images, " +
                     std::to_string(reply.removed_packs()) + " packs\n";
  if (!reply.held_back().empty()) {
    text += "nothing else was touched: " + Printable(reply.held_back()) + "\n";
  }
  return text;
}

std::string Show(const v1::ImportResult& result) {
  std::string text = Line("image", Printable(result.image()));
  text += Line("job", Printable(result.job()));
  text += Line("exported as", Printable(result.source()));
  text += Line("read", FormatBytes(result.bytes()));
  text += Line("written", FormatBytes(result.stored_bytes()));
  return text;
}

std::string ShowSeries(const v1::SetSeriesRequest& request) {
  const std::string job = Printable(request.job());
  if (request.every_ms() == 0) return job + ": no periodic checkpoints\n";
  return job + ": a checkpoint every " +
         FormatDuration(request.every_ms() * 1000) +
         (request.keep() == 0
              ? std::string()
              : ", the last " + std::to_string(request.keep()) + " are kept") +
         "\n";
}

}  // namespace pos::cli
