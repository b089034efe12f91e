// The command line of pos-cli.
//
// Threads: none of its own; one caller.
//
// Test: tests/pos/cli/options_test.cc
#ifndef POS_CLI_OPTIONS_H_
#define POS_CLI_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pos/base/status.h"

namespace pos::cli {

enum class Command {
  kRun,
  kPs,
  kLogs,
  kWait,
  kStop,
  kDevices,
  kCheck,
  kCheckpoint,
  kRestore,
  kImagesList,
  kImagesShow,
  kImagesVerify,
  kImagesRemove,
  kImagesDiff,
  kImagesGc,
  kImagesExport,
  kImagesImport,
};

enum class FilePolicy { kTruncate, kKeep, kCopy };

struct Options {
  Command command = Command::kPs;
  // --socket, else POS_SOCKET, else where the user's posd listens by default.
  std::string socket;
  bool json = false;

  std::string target;    // JOB or IMAGE
  std::string target_b;  // images diff: the other IMAGE
  std::string file;      // images export, import; "-": a standard stream
  std::string name;      // run, restore
  std::string device;    // run: "0,1"; restore: "0:1,1:0"
  bool detach = false;
  std::vector<std::string> argv;  // run: not empty
  bool follow = false;
  std::string mode = "auto";
  bool stop = false;
  std::string tag;
  bool lazy = false;
  std::optional<std::uint64_t> every_ms;  // checkpoint --every; 0: no more
  std::uint32_t keep = 0;                 // of those; 0: all
  std::string trace;                      // file; empty: none
  FilePolicy files = FilePolicy::kTruncate;
  std::string copy_directory;  // absolute; only with kCopy
};

struct ParsedCommandLine {
  // Nothing is to be done: --help or --version asked for this text.
  std::optional<std::string> answer;
  Options options;
};

// `arguments` without the program's name. kInvalid for what makes no sense; the
// hint names the help that applies.
Result<ParsedCommandLine> ParseCommandLine(
    const std::vector<std::string>& arguments);

// Whether --json is among the options: known even when the rest cannot be
// parsed.
[[nodiscard]] bool WantsJson(const std::vector<std::string>& arguments);

}  // namespace pos::cli

#endif  // POS_CLI_OPTIONS_H_
