// The one file of pos-cli's that includes CLI11.
#include "pos/cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <utility>

#include "conf/units.h"
#include "pos/base/version.h"
#include "pos/cli/help.h"
#include "pos/daemon/socket_file.h"

namespace pos::cli {
namespace {

constexpr const char* kDashes = "--";

// Adds the options that every command has.
void AddCommon(CLI::App* app, Options* options) {
  app->add_flag("--json", options->json,
                "Print one JSON object on standard output");
  app->add_option("--socket", options->socket,
                  "Socket of posd (default: POS_SOCKET, else the user's own)")
      ->type_name("PATH");
}

struct Parser {
  explicit Parser(Options* o) : options(o) {}

  CLI::App* Add(CLI::App* parent, Command command, const char* name,
                const char* description, const char* footer) {
    CLI::App* const added = parent->add_subcommand(name, description);
    added->footer(footer);
    AddCommon(added, options);
    added->callback([this, command] { options->command = command; });
    return added;
  }

  // A command that takes a job or an image.
  CLI::App* AddWithTarget(CLI::App* parent, Command command, const char* name,
                          const char* target, const char* description,
                          const char* footer) {
    CLI::App* const added = Add(parent, command, name, description, footer);
    added
        ->add_option(target, options->target,
                     std::string(target) == "JOB" ? "Name of the job"
                                                  : "Name of the image")
        ->required()
        ->type_name("");
    return added;
  }

  void Build();
  void AddJobCommands();
  void AddCheckpointCommands();
  void AddImageCommands();
  void AddTrace(CLI::App* command);

  Options* const options;
  std::string files = "truncate";
  std::string every;
  CLI::App app{"Runs CUDA programs under POS and checkpoints them.", "pos-cli"};
  CLI::App* run = nullptr;
};

void Parser::Build() {
  app.set_version_flag("--version", std::string("pos-cli ") + kVersion);
  app.footer(help::kMain);
  app.require_subcommand(1);
  AddCommon(&app, options);
  AddJobCommands();
  AddCheckpointCommands();
  AddImageCommands();
}

void Parser::AddJobCommands() {
  run = Add(&app, Command::kRun, "run", "Start a job", help::kRun);
  run->add_option("--name", options->name,
                  "Name of the job (default: made from the program's)")
      ->type_name("N");
  run->add_option("--device", options->device,
                  "Devices of the node, such as 0 or 0,1 (default: the one "
                  "with the most free memory)")
      ->type_name("D");
  run->add_flag("-d,--detach", options->detach,
                "Return when the program runs; its output goes to the log");
  run->prefix_command();

  Add(&app, Command::kPs, "ps", "List jobs", help::kPs);
  CLI::App* const logs =
      AddWithTarget(&app, Command::kLogs, "logs", "JOB",
                    "Show what a job has written", help::kLogs);
  logs->add_flag("-f,--follow", options->follow,
                 "Go on as it writes, until it ends");
  AddWithTarget(&app, Command::kWait, "wait", "JOB",
                "Wait for a job's end; exits with its status", help::kWait);
  AddWithTarget(&app, Command::kStop, "stop", "JOB", "End a job", help::kStop);
  Add(&app, Command::kDevices, "devices", "List the node's devices",
      help::kDevices);
  Add(&app, Command::kCheck, "check", "Look whether the node is fit for POS",
      help::kCheck);
}

void Parser::AddCheckpointCommands() {
  CLI::App* const checkpoint =
      AddWithTarget(&app, Command::kCheckpoint, "checkpoint", "JOB",
                    "Write an image of a job", help::kCheckpoint);
  checkpoint
      ->add_option("--mode", options->mode,
                   "stop: the job stands still while its memory is copied; "
                   "cow: it runs on, and what it is about to write is kept "
                   "aside; recopy: its memory is copied before it stands "
                   "still; auto: posd chooses")
      ->type_name("auto|stop|cow|recopy")
      ->capture_default_str();
  checkpoint->add_flag("--stop", options->stop,
                       "End the job once the image is complete");
  checkpoint->add_option("--tag", options->tag, "A word to know the image by")
      ->type_name("T");
  checkpoint
      ->add_option("--every", every,
                   "Let posd write one each time this has passed, such as 30m; "
                   "0: no more")
      ->type_name("TIME")
      ->excludes("--stop")
      ->excludes("--tag");
  checkpoint
      ->add_option("--keep", options->keep,
                   "Of the images that --every makes, keep the last N only "
                   "(default: all)")
      ->type_name("N")
      ->needs("--every")
      ->check(CLI::Range(1u, 1000000u));
  AddTrace(checkpoint);

  CLI::App* const restore =
      AddWithTarget(&app, Command::kRestore, "restore", "IMAGE",
                    "Start a job from an image", help::kRestore);
  restore->add_flag("--lazy", options->lazy,
                    "Let the job run at once and load its device memory "
                    "behind it");
  restore
      ->add_option("--device", options->device,
                   "Devices of the image on devices of the node, such as "
                   "0:1,1:0 (default: any that fit)")
      ->type_name("MAP");
  restore
      ->add_option("--name", options->name,
                   "Name of the new job (default: the image's job, with -2, "
                   "-3, ... while that is in use)")
      ->type_name("N");
  restore
      ->add_option("--files", files,
                   "Files that have grown since: truncate them, keep them, or "
                   "continue on copies (copy=DIR; default DIR: IMAGE-files)")
      ->type_name("truncate|keep|copy")
      ->capture_default_str();
  AddTrace(restore);
}

void Parser::AddTrace(CLI::App* command) {
  command
      ->add_option("--trace", options->trace,
                   "Write what took how long, for chrome://tracing or "
                   "ui.perfetto.dev")
      ->type_name("FILE");
}

void Parser::AddImageCommands() {
  CLI::App* const images = app.add_subcommand("images", "Work with images");
  images->require_subcommand(1);
  images->footer(help::kImages);
  AddCommon(images, options);
  Add(images, Command::kImagesList, "ls", "List images", help::kImagesList);
  AddWithTarget(images, Command::kImagesShow, "show", "IMAGE",
                "Show what an image holds", help::kImagesShow);
  AddWithTarget(images, Command::kImagesVerify, "verify", "IMAGE",
                "Read an image and compare it with its checksums",
                help::kImagesVerify);
  AddWithTarget(images, Command::kImagesRemove, "rm", "IMAGE",
                "Remove an image", help::kImagesRemove);
  CLI::App* const diff =
      AddWithTarget(images, Command::kImagesDiff, "diff", "A",
                    "Compare two images", help::kImagesDiff);
  diff->add_option("B", options->target_b, "Name of the other image")
      ->required()
      ->type_name("");
  CLI::App* const exported =
      AddWithTarget(images, Command::kImagesExport, "export", "IMAGE",
                    "Write an image to one file", help::kImagesExport);
  exported->add_option("FILE", options->file, "The file; -: standard output")
      ->required()
      ->type_name("");
  CLI::App* const imported =
      Add(images, Command::kImagesImport, "import",
          "Take an exported image into the store", help::kImagesImport);
  imported->add_option("FILE", options->file, "The file; -: standard input")
      ->required()
      ->type_name("");
  Add(images, Command::kImagesGc, "gc",
      "Give back the space of what no image needs", help::kImagesGc);
}

// The innermost command that was named.
const CLI::App* Deepest(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  return at;
}

// With those around it: "pos-cli images show".
std::string NamedCommand(const CLI::App& app) {
  const CLI::App* at = Deepest(app);
  std::string text = at->get_name();
  while (at != &app) {
    at = at->get_parent();
    text = at->get_name() + " " + text;
  }
  return text;
}

// An error of CLI11's. Of a command that is none it says that one is required.
Status Explain(const CLI::App& app, const std::string& error) {
  const std::string named = NamedCommand(app);
  const std::string hint = "`" + named + " --help` shows how";
  const CLI::App* const at = Deepest(app);
  const std::vector<std::string> rest = at->remaining();
  std::string commands;
  for (const CLI::App* command : at->get_subcommands({})) {
    commands += (commands.empty() ? "" : ", ") + command->get_name();
  }
  if (commands.empty() || rest.empty()) return Invalid(error, hint);
  return Invalid("'" + rest.front() + "' is no command of " + named,
                 "the commands are " + commands + "; " + hint);
}

// The help of the command that --help was given to.
std::string HelpText(const Parser& parser) {
  const CLI::App* const at = Deepest(parser.app);
  std::string parents = NamedCommand(parser.app);
  parents.resize(parents.rfind(' ') == std::string::npos ? 0
                                                         : parents.rfind(' '));
  std::string text = at->help(parents);
  if (at != parser.run) return text;
  const std::string options = "[OPTIONS]";  // CLI11 knows nothing of CMD
  return text.replace(text.find(options), options.size(),
                      options + " -- CMD...");
}

Status ParseFiles(const std::string& text, Options* options) {
  const std::string copy = "copy";
  if (text == "truncate") {
    options->files = FilePolicy::kTruncate;
  } else if (text == "keep") {
    options->files = FilePolicy::kKeep;
  } else if (text == copy || text.starts_with(copy + "=")) {
    options->files = FilePolicy::kCopy;
    const std::string directory = text == copy ? options->target + "-files"
                                               : text.substr(copy.size() + 1);
    std::error_code error;
    const std::filesystem::path path =
        std::filesystem::absolute(directory, error);
    if (directory.empty() || error) {
      return Invalid("--files " + text + " names no directory",
                     "write --files copy=DIR");
    }
    options->copy_directory = path.lexically_normal().string();
  } else {
    return Invalid("--files " + text + " is not known",
                   "use --files truncate, --files keep or --files copy=DIR");
  }
  return {};
}

Status ParseEvery(const std::string& text, Options* options) {
  if (text.empty()) return {};
  constexpr std::uint64_t kMostMs = 366ull * 24 * 3600 * 1000;
  const std::optional<std::uint64_t> ms =
      text == "0" ? 0 : conf::ParseTimeMs(text);
  if (!ms || *ms > kMostMs) {
    return Invalid("--every " + text + " is not a time",
                   "write a whole number and ms, s, m, h or d: --every 30m");
  }
  options->every_ms = ms;
  if (*ms != 0 && !options->trace.empty()) {
    return Invalid("--trace is for a checkpoint that is made now",
                   "leave out --trace or --every");
  }
  return {};
}

void ChooseSocket(Options* options) {
  if (!options->socket.empty()) return;
  const char* const from_environment = std::getenv("POS_SOCKET");
  options->socket = from_environment != nullptr && *from_environment != '\0'
                        ? from_environment
                        : DefaultSocketPath();
}

Status Finish(const Parser& parser, bool has_dashes,
              std::vector<std::string> command, Options* options) {
  ChooseSocket(options);
  if (options->command == Command::kRestore) {
    POS_RETURN_IF_ERROR(ParseFiles(parser.files, options));
  }
  POS_RETURN_IF_ERROR(ParseEvery(parser.every, options));
  const bool run = options->command == Command::kRun;
  if (has_dashes && !run) {
    return Invalid("only `pos-cli run` takes a command after --",
                   "`" + NamedCommand(parser.app) + " --help` shows how");
  }
  if (!run) return {};
  // Without "--" the command begins with the first word that is no option.
  std::vector<std::string> words = parser.run->remaining();
  if (has_dashes && !words.empty()) {
    return Invalid("'" + words.front() + "' before -- is not known",
                   "`pos-cli run --help` shows the options");
  }
  options->argv = has_dashes ? std::move(command) : std::move(words);
  if (!options->argv.empty() && !has_dashes &&
      options->argv.front().starts_with("-")) {
    return Invalid("'" + options->argv.front() + "' is not known",
                   "`pos-cli run --help` shows the options");
  }
  if (options->argv.empty() || options->argv.front().empty()) {
    return Invalid("no program is named",
                   "write pos-cli run -- PROGRAM ARGUMENTS");
  }
  return {};
}

}  // namespace

bool WantsJson(const std::vector<std::string>& arguments) {
  const auto end = std::find(arguments.begin(), arguments.end(), kDashes);
  return std::find(arguments.begin(), end, "--json") != end;
}

Result<ParsedCommandLine> ParseCommandLine(
    const std::vector<std::string>& arguments) {
  const auto dashes =
      std::find(arguments.begin(), arguments.end(), std::string(kDashes));
  const bool has_dashes = dashes != arguments.end();
  std::vector<std::string> command;
  if (has_dashes) command.assign(dashes + 1, arguments.end());
  std::vector<std::string> ours(arguments.begin(), dashes);

  ParsedCommandLine parsed;
  const auto parser = std::make_unique<Parser>(&parsed.options);
  try {
    parser->Build();
    std::reverse(ours.begin(), ours.end());  // what CLI11 takes
    parser->app.parse(std::move(ours));
  } catch (const CLI::CallForHelp&) {
    parsed.answer = HelpText(*parser);
    return parsed;
  } catch (const CLI::CallForVersion&) {
    parsed.answer = parser->app.version() + "\n";
    return parsed;
  } catch (const CLI::Error& error) {
    return Explain(parser->app, error.what());
  } catch (const std::exception& error) {
    return Internal(error.what());
  }
  POS_RETURN_IF_ERROR(
      Finish(*parser, has_dashes, std::move(command), &parsed.options));
  return parsed;
}

}  // namespace pos::cli
