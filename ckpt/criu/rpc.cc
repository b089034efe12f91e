#include "ckpt/criu/rpc.h"

#include "ckpt/criu/wire.h"

namespace pos {
namespace {

// criu_req_type
constexpr std::uint64_t kDump = 1;
constexpr std::uint64_t kRestore = 2;
constexpr std::uint64_t kNotify = 6;

// criu_req
constexpr std::uint32_t kReqType = 1;
constexpr std::uint32_t kReqOpts = 2;
constexpr std::uint32_t kReqNotifySuccess = 3;

// criu_opts
constexpr std::uint32_t kImagesDirFd = 1;
constexpr std::uint32_t kPid = 2;
constexpr std::uint32_t kLeaveRunning = 3;
constexpr std::uint32_t kFileLocks = 8;
constexpr std::uint32_t kLogLevel = 9;
constexpr std::uint32_t kLogFile = 10;
constexpr std::uint32_t kNotifyScripts = 12;
constexpr std::uint32_t kWorkDirFd = 17;
constexpr std::uint32_t kLinkRemap = 18;
constexpr std::uint32_t kRestoreSibling = 26;
constexpr std::uint32_t kInheritFd = 27;
constexpr std::uint32_t kManageCgroupsMode = 34;
constexpr std::uint32_t kGhostLimit = 35;
constexpr std::uint32_t kExternal = 37;
constexpr std::uint32_t kTimeout = 45;
constexpr std::uint64_t kCgroupsIgnore = 0;  // criu_cg_mode

// criu_resp
constexpr std::uint32_t kRespType = 1;
constexpr std::uint32_t kRespSuccess = 2;
constexpr std::uint32_t kRespRestore = 4;
constexpr std::uint32_t kRespNotify = 5;
constexpr std::uint32_t kRespErrno = 7;

void PutPlaces(const CriuPlaces& places, WireWriter* opts) {
  opts->PutSigned(kImagesDirFd, places.images_fd);
  opts->PutSigned(kWorkDirFd, places.work_fd);
  opts->PutSigned(kLogLevel, places.log_level);
  opts->PutBytes(kLogFile, places.log_file);
  opts->PutNumber(kFileLocks, 1);
  opts->PutNumber(kNotifyScripts, 1);
  // The job's cgroup is its service's business, before and after.
  opts->PutNumber(kManageCgroupsMode, kCgroupsIgnore);
}

std::string Request(std::uint64_t type, const WireWriter& opts) {
  WireWriter request;
  request.PutNumber(kReqType, type);
  request.PutBytes(kReqOpts, opts.message());
  return request.message();
}

}  // namespace

std::string EncodeCriuDump(const CriuDumpRequest& request) {
  WireWriter opts;
  PutPlaces(request.places, &opts);
  opts.PutSigned(kPid, request.pid);
  // The tree always runs on when CRIU ends. Whoever wants it dead kills it
  // while it is frozen, so that it cannot execute another instruction.
  opts.PutNumber(kLeaveRunning, 1);
  opts.PutNumber(kLinkRemap, 1);
  opts.PutNumber(kGhostLimit, kCriuGhostLimitBytes);
  opts.PutNumber(kTimeout, request.freeze_timeout_s);
  for (const std::string& key : request.external) {
    opts.PutBytes(kExternal, key);
  }
  return Request(kDump, opts);
}

std::string EncodeCriuRestore(const CriuRestoreRequest& request) {
  WireWriter opts;
  PutPlaces(request.places, &opts);
  // The restored root becomes a child of CRIU's parent and not of CRIU, whose
  // end would otherwise send the program its parent-death signal.
  opts.PutNumber(kRestoreSibling, 1);
  for (const auto& [key, fd] : request.inherit) {
    WireWriter inherit;
    inherit.PutBytes(1, key);
    inherit.PutSigned(2, fd);
    opts.PutBytes(kInheritFd, inherit.message());
  }
  return Request(kRestore, opts);
}

std::string EncodeCriuNotifyReply(bool go_on) {
  WireWriter reply;
  reply.PutNumber(kReqType, kNotify);
  reply.PutNumber(kReqNotifySuccess, go_on ? 1 : 0);
  return reply.message();
}

Result<CriuResponse> DecodeCriuResponse(std::string_view bytes) {
  CriuResponse response;
  bool has_type = false;
  WireReader reader(bytes);
  while (reader.Next()) {
    switch (reader.field()) {
      case kRespType:
        has_type = true;
        response.notification = reader.number() == kNotify;
        break;
      case kRespSuccess:
        response.success = reader.number() != 0;
        break;
      case kRespErrno:
        response.cr_errno = static_cast<std::int32_t>(reader.number());
        break;
      case kRespRestore: {
        WireReader restore(reader.bytes());
        while (restore.Next()) {
          if (restore.field() == 1) {
            response.restored_pid = static_cast<std::int32_t>(restore.number());
          }
        }
        break;
      }
      case kRespNotify: {
        WireReader notify(reader.bytes());
        while (notify.Next()) {
          if (notify.field() == 1) response.script = notify.bytes();
        }
        break;
      }
      default:
        break;
    }
  }
  if (!reader.ok() || !has_type) {
    return Proto("CRIU sent something that is not a response");
  }
  return response;
}

}  // namespace pos
