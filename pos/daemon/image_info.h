// What an image says of the job, the host and the sessions, besides memory:
// written into a manifest at a checkpoint, read at a restore.
//
// Threads: any.
#ifndef POS_DAEMON_IMAGE_INFO_H_
#define POS_DAEMON_IMAGE_INFO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ckpt/format/manifest.h"
#include "ckpt/store/image.h"
#include "pos/base/status.h"
#include "pos/daemon/device_table.h"
#include "pos/daemon/job_record.h"
#include "pos/runner/runner.pb.h"

namespace pos {

// `criu_dir`: the CPU part, complete.
void FillJobInfo(const JobRecord& record, const std::string& criu_dir,
                 ckpt::Manifest* manifest);
void FillHostInfo(const Result<std::string>& criu, ckpt::Manifest* manifest);
void FillDevices(const JobRecord& record, const DeviceSnapshot& devices,
                 ckpt::Manifest* manifest);

// What a restore needs to know of a session: kept as attachment "session.N".
struct SessionAttachment {
  std::uint64_t session = 0;
  std::uint64_t client_ns_pid = 0;
  std::uint64_t verdict_address = 0;
  std::string host_file;
  std::vector<std::uint64_t> granted_bytes;  // by device
};
void AttachSession(std::size_t number, const SessionRecordEntry& record,
                   const runner::Quiesced& quiesced, ckpt::Manifest* manifest);
Result<SessionAttachment> ReadSession(std::size_t number,
                                      const ckpt::Manifest& manifest);

// A sealed image as one JSON object: the manifest, and what takes how much.
[[nodiscard]] std::string ImageJson(const ckpt::ImageHandle& image);

}  // namespace pos

#endif  // POS_DAEMON_IMAGE_INFO_H_
