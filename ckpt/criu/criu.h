// The CRIU program: where it is, whether it will do, running it for an answer.
//
// Threads:  any.
// Blocking: each call runs a program and waits for it, up to the stated time.
//
// Test: tests/ckpt/criu/criu_test.cc
#ifndef CKPT_CRIU_CRIU_H_
#define CKPT_CRIU_CRIU_H_

#include <string>
#include <vector>

#include "pos/base/status.h"

namespace pos {

struct CriuVersion {
  int major = 0;
  int minor = 0;
  int patch = 0;
  [[nodiscard]] std::string ToString() const;  // "4.1.1"
};
// First version that carries what jobs need (time namespaces together with
// inherited files, pidfds, kernels from 6.13 on).
inline constexpr CriuVersion kCriuMinimum{4, 1, 0};

// The program to use: the one that POS_CRIU names; else `near`/../criu/criu,
// `near` being the directory of POS's own programs (scripts/setup and the
// bundle put CRIU there); else the first `criu` in PATH. kNoSuch, with what to
// do about it, when there is none. Does not run it.
Result<std::string> FindCriu(const std::string& near);
// Directory of the running executable.
Result<std::string> OwnDirectory();

// Runs `criu --version`.
Result<CriuVersion> GetCriuVersion(const std::string& criu);
// GetCriuVersion, and kIncompatible when it is below kCriuMinimum.
Result<CriuVersion> RequireCriu(const std::string& criu);

// Runs `criu check`: can this kernel be used? CRIU's words when it cannot.
Status CheckCriu(const std::string& criu);
// Runs `criu check --feature NAME` ("mem_dirty_track", "timens", …).
[[nodiscard]] bool CriuHasFeature(const std::string& criu,
                                  const std::string& feature);

// Ends with the program's exit code and the first 64 KiB of what it wrote to
// standard output and error together. After `timeout_ms` it is killed:
// kTimeout.
struct ToolResult {
  int exit_code = 0;  // 128 + n after signal n
  std::string output;
};
Result<ToolResult> RunTool(const std::vector<std::string>& argv,
                           int timeout_ms);

}  // namespace pos

#endif  // CKPT_CRIU_CRIU_H_
