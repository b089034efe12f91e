// The job's standard streams: outside ends, the caller's descriptors, the log.
//
// An endpoint is one pipe or one pseudo-terminal between pos-job and the job; a
// stream of the program is attached to at most one endpoint, an endpoint may
// serve several streams (a terminal; `2>&1`). What the job's side is made of is
// decided when the program starts and belongs to the image: a job that was
// started on a terminal has one after a restore, whoever takes its output then.
//
// Threads: the loop's.
#ifndef POS_JOB_STDIO_H_
#define POS_JOB_STDIO_H_

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/job/event_loop.h"
#include "pos/job/input_pump.h"
#include "pos/job/job.pb.h"
#include "pos/job/log_file.h"
#include "pos/job/output_pump.h"

namespace pos::job {

inline constexpr std::uint32_t kStdinBit = 1;
inline constexpr std::uint32_t kStdoutBit = 2;
inline constexpr std::uint32_t kStderrBit = 4;

// The job's side of an endpoint, as init needs it.
struct JobEnd {
  StdioEndpoint::Kind kind = StdioEndpoint::PIPE_TO_JOB;
  std::uint32_t streams = 0;
  int fd = -1;             // of a pipe; JobStdio's until CloseJobSide
  std::string slave_path;  // of a terminal: init opens it in its own mounts
  std::string image_key;   // at a restore: CRIU's name for it in the image
};

class JobStdio {
 public:
  // `stream` is 0, 1 or 2.
  using GoneHandler = std::function<void(int stream, const std::string& why)>;
  // The caller's descriptors, by stream; invalid: none.
  using CallerFds = std::array<UniqueFd, 3>;

  JobStdio(EventLoop* loop, LogFile* log, const Stdio& options,
           GoneHandler gone);
  JobStdio(const JobStdio&) = delete;
  JobStdio& operator=(const JobStdio&) = delete;

  // Makes the endpoints of a new program from what the caller's descriptors
  // are, resp. those of an image. The job's side is made accessible to the
  // user, so that the program can open /dev/stdout again.
  Status CreateNew(CallerFds caller, uid_t uid, gid_t gid);
  Status CreateFromImage(const JobImage& image, CallerFds caller);

  // For init, which is forked after this.
  [[nodiscard]] std::vector<JobEnd> JobSide() const;
  // Closes the job's side in this process. Before Start.
  void CloseJobSide();
  void Start();

  void SetWindow(const WindowSize& window);
  void SetReading(bool reading);
  void DetachCaller();

  // Reads everything the job has written. For a frozen or ended job.
  void Drain();
  // The same, and nothing more will come: no process of the job is left.
  void Finish();
  // Adds the endpoints as they are now, and the input that was not read yet.
  void Describe(JobImage* image) const;
  // CRIU's names of the terminals: external resources of a dump.
  [[nodiscard]] std::vector<std::string> TerminalKeys() const;

  // Devices of the terminals' slaves.
  [[nodiscard]] std::vector<dev_t> TerminalDevices() const;
  [[nodiscard]] bool has_terminal() const;
  [[nodiscard]] bool attached() const;
  // After Finish: the caller has all output.
  [[nodiscard]] bool finished() const;
  // Bytes that callers took so far.
  [[nodiscard]] std::uint64_t taken_bytes() const;

 private:
  struct Endpoint {
    StdioEndpoint::Kind kind = StdioEndpoint::PIPE_TO_JOB;
    std::uint32_t streams = 0;
    std::string key;
    std::string image_key;
    UniqueFd ours;
    UniqueFd job_side;
    std::string slave_path;
    dev_t slave_device = 0;
    std::unique_ptr<InputPump> input;
    std::unique_ptr<OutputPump> output;
    bool closed = false;  // was so in the image
  };

  Status AddPipe(bool to_job, std::uint32_t streams, uid_t uid, gid_t gid);
  Status AddTerminal(std::uint32_t streams, uid_t uid, gid_t gid);
  void SetTerminal(int master, const CallerFds& caller);
  void ConnectPumps(CallerFds caller, const std::string& stdin_pending);
  void ConnectInput(Endpoint* endpoint, CallerFds* caller,
                    const std::string& first);
  void ConnectOutput(Endpoint* endpoint, CallerFds* caller);

  EventLoop* const loop_;
  LogFile* const log_;
  const Stdio options_;
  GoneHandler gone_;
  std::vector<Endpoint> endpoints_;
};

}  // namespace pos::job

#endif  // POS_JOB_STDIO_H_
