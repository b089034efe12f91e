// pos-cli: the command line of POS. See docs/cli.md.
#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "pos/cli/commands.h"
#include "pos/cli/console.h"
#include "pos/cli/options.h"

namespace {

// Where a standard stream is closed, the next file that is opened would take
// its place.
void OpenStandardStreams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    const int opened =
        ::open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY);
    if (opened >= 0 && opened != fd) ::close(opened);
  }
}

}  // namespace

int main(int argc, char** argv) {
  using pos::cli::Console;
  OpenStandardStreams();
  const std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0),
                                           argv + argc);
  const auto parsed = pos::cli::ParseCommandLine(arguments);
  if (!parsed.ok()) {
    Console(pos::cli::WantsJson(arguments)).Fail(parsed.status());
    return pos::cli::kExitUsage;
  }
  if (parsed->answer) {
    Console console(false);
    console.Out(*parsed->answer);
    return console.write_status().ok() ? 0 : pos::cli::kExitFailure;
  }
  Console console(parsed->options.json);
  return pos::cli::Execute(parsed->options, &console);
}
