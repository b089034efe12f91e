// What must be known of a job after posd's death: the journal. One file a job,
// DIR/jobs/NAME/job.json, replaced atomically at each change that matters, so a
// reader sees a whole record or the one before.
//
// Threads: values.
#ifndef POS_DAEMON_JOB_RECORD_H_
#define POS_DAEMON_JOB_RECORD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "pos/base/status.h"

namespace pos {

// A process of the job that uses a device.
struct SessionRecordEntry {
  std::uint64_t session = 0;
  std::string runner;
  std::int32_t client_pid = 0;        // as posd sees it
  std::uint64_t client_ns_pid = 0;    // as the job sees it
  std::uint64_t verdict_address = 0;  // in the client
  std::string host_file;              // behind its host window

  friend bool operator==(const SessionRecordEntry&,
                         const SessionRecordEntry&) = default;
};

struct JobRecord {
  std::string name;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::string> argv;
  std::string cwd;
  std::vector<int> devices;  // node ordinals, in the job's order
  std::string state;         // as JSON output spells it
  bool detached = false;     // nobody waits for its output
  std::uint64_t started_at = 0;
  // Of the first job of a line of restores; its restored jobs have the same.
  std::string lineage;
  std::int32_t pid = 0;
  std::int32_t ns_pid = 0;
  std::int32_t init_pid = 0;
  bool has_exit_code = false;
  std::int32_t exit_code = 0;
  std::string message;
  std::string image;  // restored from
  // What keeps that image while memory is still loaded from it; else empty.
  std::string pin;
  std::vector<SessionRecordEntry> sessions;
  // A checkpoint under way: its epoch, and whether its image was sealed and the
  // job is to end (--stop). Both 0 and false when there is none.
  std::uint32_t epoch = 0;
  bool end_after_checkpoint = false;
  std::uint64_t next_session = 1;
  // Periodic checkpoints; every_ms 0: none.
  std::string series;  // marks their images
  std::uint64_t series_every_ms = 0;
  std::uint32_t series_keep = 0;  // 0: all
  std::string series_mode;
  std::uint64_t series_next_at = 0;  // milliseconds since the epoch
  std::string series_last_image;
  std::string series_last_error;

  [[nodiscard]] bool alive() const {
    return state != "exited" && state != "failed" && state != "stopped";
  }
  friend bool operator==(const JobRecord&, const JobRecord&) = default;
};

[[nodiscard]] std::string EncodeJobRecord(const JobRecord& record);
// kCorrupt for anything that EncodeJobRecord does not write.
Result<JobRecord> DecodeJobRecord(const std::string& text);

}  // namespace pos

#endif  // POS_DAEMON_JOB_RECORD_H_
