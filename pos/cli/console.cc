#include "pos/cli/console.h"

#include <unistd.h>

#include <span>

#include "pos/base/fd.h"
#include "pos/cli/json.h"
#include "pos/cli/show.h"

namespace pos::cli {

void Console::Out(std::string_view text) {
  if (!write_status_.ok()) return;
  write_status_ = WriteFull(STDOUT_FILENO, std::as_bytes(std::span(text)),
                            "standard output");
}

void Console::Err(std::string_view text) {
  // Where it cannot be said, it cannot be said that it cannot be said.
  WriteFull(STDERR_FILENO, std::as_bytes(std::span(text)), "standard error")
      .IgnoreError();
}

void Console::Fail(const Status& status) {
  if (json_) {
    Out(ErrorJson(status) + "\n");
  } else {
    Err(ShowError(status));
  }
}

void Console::FailOnStderr(const Status& status) {
  Err(json_ ? ErrorJson(status) + "\n" : ShowError(status));
}

}  // namespace pos::cli
