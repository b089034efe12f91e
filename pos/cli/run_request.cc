#include "pos/cli/run_request.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <system_error>
#include <vector>

#include "pos/cli/console.h"

namespace pos::cli {

Result<v1::RunRequest> MakeRunRequest(const Options& options) {
  v1::RunRequest request;
  request.set_name(options.name);
  request.set_device(options.device);
  for (const std::string& word : options.argv) request.add_argv(word);
  for (char** entry = environ; *entry != nullptr; ++entry) {
    request.add_environment(*entry);
  }
  std::error_code error;
  const std::filesystem::path directory = std::filesystem::current_path(error);
  if (error) {
    return ErrnoStatus(error.value(), "the current directory")
        .WithContext("cannot run");
  }
  request.set_directory(directory.string());
  const mode_t mask = ::umask(0);
  ::umask(mask);
  request.set_umask(mask);
  for (int resource = 0; resource < RLIMIT_NLIMITS; ++resource) {
    rlimit limit{};
    if (::getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) {
      continue;
    }
    v1::ResourceLimit* const l = request.add_limits();
    l->set_resource(static_cast<std::uint32_t>(resource));
    l->set_soft(limit.rlim_cur);
    l->set_hard(limit.rlim_max);
  }
  return request;
}

int ExitStatusFor(const Status& status, const std::string& program) {
  if (status.code() != Code::kNoSuch && status.code() != Code::kDenied) {
    return kExitRunFailure;
  }
  std::vector<std::string> places;
  if (program.find('/') != std::string::npos) {
    places.push_back(program);
  } else if (const char* path = std::getenv("PATH"); path != nullptr) {
    std::istringstream in(path);
    for (std::string directory; std::getline(in, directory, ':');) {
      places.push_back((directory.empty() ? "." : directory) + "/" + program);
    }
  }
  bool there = false;
  for (const std::string& place : places) {
    struct stat st {};
    if (::stat(place.c_str(), &st) != 0) continue;
    there = true;
    // It can be run: something else is missing.
    if (S_ISREG(st.st_mode) && ::access(place.c_str(), X_OK) == 0) {
      return kExitRunFailure;
    }
  }
  return there ? kExitCannotExecute : kExitNoProgram;
}

}  // namespace pos::cli
