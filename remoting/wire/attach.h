// Records that a client, posd and a runner exchange around a session's shared
// memory: fixed-size structures, one per message of a SOCK_SEQPACKET Unix
// socket, descriptors by SCM_RIGHTS.
//
//   client → posd    AttachRequest        on posd's `attach` socket
//   posd → client    AttachReply          only to refuse; else it hands the
//                                         connection to a runner
//   runner → client  AttachReply          + ring, staging, bell, host window
//   both             SessionRecord        from then on
//
// Numbers are host-endian (one host), strings NUL-terminated. A record of
// another size or magic ends the connection.
#ifndef REMOTING_WIRE_ATTACH_H_
#define REMOTING_WIRE_ATTACH_H_

#include <array>
#include <cstdint>

namespace pos::wire {

inline constexpr std::uint32_t kAttachMagic = 0x41534f50;  // "POSA"
// Version of these records and of the calls that follow. A runner serves
// clients of kAttachVersionOldest up to kAttachVersion.
inline constexpr std::uint32_t kAttachVersion = 1;
inline constexpr std::uint32_t kAttachVersionOldest = 1;

using Token = std::array<std::uint8_t, 32>;

enum class AttachKind : std::uint32_t {
  kNew = 1,     // a process that has no session yet
  kResume = 2,  // a detached or restored process; `token` names its session
};

struct AttachRequest {
  std::uint32_t magic = kAttachMagic;
  std::uint32_t version = kAttachVersion;
  AttachKind kind = AttachKind::kNew;
  std::uint32_t reserved = 0;
  Token token{};
};

enum class AttachStatus : std::uint32_t {
  kOk = 0,
  kRetry = 1,    // the job is being checkpointed: close, wait, come again
  kRefused = 2,  // `text` says why
  kGone = 3,     // the session to come back to has ended: do not try again
};

// Descriptors with kOk, in this order.
enum AttachFds : std::uint32_t {
  kAttachRingFd,
  kAttachStagingFd,
  kAttachBellFd,  // eventfd: the runner signals finished calls
  kAttachHostFd,  // tmpfs file behind the host window
  kAttachFdCount,
};

struct AttachReply {
  std::uint32_t magic = kAttachMagic;
  std::uint32_t version = kAttachVersion;
  AttachStatus status = AttachStatus::kOk;
  std::uint32_t device_count = 0;
  std::uint64_t session = 0;
  std::uint64_t ring_map_bytes = 0;  // header, slots, leases and ring, once
  std::uint64_t staging_bytes = 0;
  // Device addresses: reserved by the client, never accessible to it.
  std::uint64_t arena_base = 0;
  std::uint64_t arena_bytes = 0;
  // Host memory shared with the runner at the same address.
  std::uint64_t host_base = 0;
  std::uint64_t host_bytes = 0;
  std::array<char, 192> text{};
};

enum class SessionRecordType : std::uint32_t {
  // Client → runner.
  kReady = 1,     // mapped; `a` = address of the Verdict
  kGated = 2,     // no call is being sent; epoch as asked
  kDetached = 3,  // last record: all mappings are about to go
  kRefusing = 4,  // cannot detach now; `a` = calls still inside
  kHostFile = 6,  // a file for HostRegister, as descriptor; `a` = its number
  // Runner → client.
  kGate = 16,    // admit no new call
  kUngate = 17,  // admit calls again
  kDetach = 18,  // leave everything shared, then wait for a Verdict
};

struct SessionRecord {
  SessionRecordType type = SessionRecordType::kReady;
  std::uint32_t epoch = 0;
  std::uint64_t a = 0;
  std::uint64_t b = 0;
};

// What a detached client waits for, in its own memory. Whoever holds ptrace
// rights over the process writes all of it but `word`, then `word`.
enum VerdictWord : std::uint32_t {
  kVerdictNone = 0,
  kVerdictResume = 1,  // connect to `path`, present `token`
};

struct Verdict {
  std::array<char, 108> path{};
  Token token{};
  std::uint32_t epoch = 0;
  std::uint32_t word = kVerdictNone;  // accessed atomically by the client
};
static_assert(sizeof(Verdict) == 148);

}  // namespace pos::wire

#endif  // REMOTING_WIRE_ATTACH_H_
