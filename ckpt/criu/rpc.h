// CRIU's RPC: the messages that `criu swrk FD` takes and gives on a
// SOCK_SEQPACKET socket (rpc.proto of CRIU, stable since 1.0; libcriu and the
// container runtimes use the same).
//
// Course of an operation: request; then, any number of times, a notification
// that CRIU waits on until it is answered (this is how a dumped tree is held
// frozen); then the final response; then CRIU exits. Why RPC and not
// --action-script: a script would have to be run from a path, and the program
// at that path may have been upgraded or removed while the job ran.
//
// Threads: functions of their arguments.
//
// Test: tests/ckpt/criu/rpc_test.cc
#ifndef CKPT_CRIU_RPC_H_
#define CKPT_CRIU_RPC_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pos/base/status.h"

namespace pos {

// What dump and restore have in common. Descriptors are numbers in the process
// that made the socket pair: CRIU opens them as /proc/PID/fd/N of its peer.
struct CriuPlaces {
  int images_fd = -1;
  int work_fd = -1;      // log and statistics go there
  std::string log_file;  // name inside work_fd, no slash
  int log_level = 2;     // errors and warnings
};

struct CriuDumpRequest {
  CriuPlaces places;
  std::int32_t pid = 0;  // root of the tree, as CRIU's pid namespace sees it
  std::vector<std::string> external;    // "tty[rdev:dev]"
  std::uint32_t freeze_timeout_s = 10;  // to stop the tree, not to dump it
};

struct CriuRestoreRequest {
  CriuPlaces places;
  // Resource key ("pipe:[1234]", "tty[8801:1a]", a path without its leading
  // slash) and the descriptor, a number in the CRIU process, that stands in
  // for it. CRIU consumes descriptors: no number may appear twice.
  std::vector<std::pair<std::string, int>> inherit;
};

// The largest deleted ("ghost") file that goes into an image: the field is 32
// bits wide.
inline constexpr std::uint64_t kCriuGhostLimitBytes = 0xffffffffu;

[[nodiscard]] std::string EncodeCriuDump(const CriuDumpRequest& request);
[[nodiscard]] std::string EncodeCriuRestore(const CriuRestoreRequest& request);
// Answer to a notification. `go_on` false makes CRIU give up: a dump lets the
// tree run on, a restore kills what it made.
[[nodiscard]] std::string EncodeCriuNotifyReply(bool go_on);

struct CriuResponse {
  bool notification = false;
  std::string script;  // of a notification: "post-dump", "post-restore", …
  bool success = false;
  std::int32_t restored_pid = 0;  // of the answer to a restore
  std::int32_t cr_errno = 0;
};

// kProto when the bytes are not a response.
Result<CriuResponse> DecodeCriuResponse(std::string_view bytes);

}  // namespace pos

#endif  // CKPT_CRIU_RPC_H_
