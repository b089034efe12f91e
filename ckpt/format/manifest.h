// The manifest: everything about an image except its bulk. ckpt/FORMAT.md,
// "Manifest".
//
// Threads: values.
// Memory:  a manifest is held whole; its file has at most kMaxManifestBytes.
//
// Test: tests/ckpt/format/manifest_test.cc   Fuzz: tests/fuzz/image_fuzz.cc
#ifndef CKPT_FORMAT_MANIFEST_H_
#define CKPT_FORMAT_MANIFEST_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ckpt/format/digest.h"
#include "ckpt/format/id.h"
#include "ckpt/format/record.h"
#include "pos/base/status.h"

namespace pos::ckpt {

inline constexpr std::uint64_t kMaxManifestBytes = 64u << 20;

enum class CheckpointMode : std::uint32_t { kStop = 1, kCow = 2, kRecopy = 3 };
[[nodiscard]] std::string_view CheckpointModeName(CheckpointMode mode);

enum class JobStdio : std::uint32_t { kNone = 0, kPipes = 1, kTerminal = 2 };

struct JobInfo {
  std::string name;
  std::string cwd;
  std::vector<std::string> argv;
  // The same for a job and for what is restored from its images: whose log it
  // is that a restore may continue.
  std::string lineage;
  std::uint64_t log_bytes = 0;  // length of the job's log at the cut
  std::uint32_t root_ns_pid = 0;
  std::uint32_t highest_ns_pid = 0;  // a restore raises ns_last_pid above it
  JobStdio stdio = JobStdio::kNone;

  friend bool operator==(const JobInfo&, const JobInfo&) = default;
};

// The host that the image was made on; preflight compares.
struct HostInfo {
  std::string pos_version;
  std::string kernel;   // uname -r
  std::string machine;  // uname -m
  std::string cpu_model;
  std::string cpu_flags;  // separated by spaces
  std::string criu_version;
  std::string host;

  friend bool operator==(const HostInfo&, const HostInfo&) = default;
};

struct DeviceRecord {
  std::uint32_t ordinal = 0;  // as the job sees it
  std::uint32_t multiprocessors = 0;
  std::uint32_t cc_major = 0;  // compute capability
  std::uint32_t cc_minor = 0;
  std::uint64_t memory_bytes = 0;
  std::array<std::byte, 16> uuid{};
  std::string kind;  // "cuda", "sim"
  std::string name;
  std::string architecture;  // "sm_90"
  std::string driver;

  friend bool operator==(const DeviceRecord&, const DeviceRecord&) = default;
};

// What a checkpoint took. The store computes those marked S when it seals;
// the others are the caller's.
struct Totals {
  std::uint64_t stall_ns = 0;     // gate closed to gate open
  std::uint64_t cpu_dump_ns = 0;  // contained in stall_ns
  std::uint64_t total_ns = 0;     // request to seal
  std::uint64_t live_bytes = 0;   // S: device memory of all sessions
  std::uint64_t copied_bytes = 0;
  std::uint64_t written_bytes = 0;  // S: stored for this image, files included
  std::uint64_t chunks = 0;         // S: with data
  std::uint64_t zero_bytes = 0;     // S
  std::uint64_t reused_bytes = 0;   // S: stored bytes of earlier images
  std::uint64_t unforeseen_chunks = 0;
  std::uint64_t rounds = 0;

  friend bool operator==(const Totals&, const Totals&) = default;
};

// A regular file that the job had open for writing.
struct OpenFileRecord {
  std::string path;
  std::uint64_t bytes = 0;
  std::uint64_t mtime_ns = 0;
  std::uint32_t flags = 0;  // open(2)

  friend bool operator==(const OpenFileRecord&,
                         const OpenFileRecord&) = default;
};

struct SessionRecord {
  std::uint32_t number = 0;
  std::uint32_t client_ns_pid = 0;
  std::uint64_t live_bytes = 0;        // S: device memory
  std::uint64_t chunks = 0;            // S: with data
  std::uint64_t zero_bytes = 0;        // S
  std::uint64_t own_stored_bytes = 0;  // S: in packs written for this image
  std::uint64_t arena_base = 0;
  std::uint64_t arena_bytes = 0;
  std::uint64_t window_base = 0;
  std::uint64_t window_bytes = 0;
  std::uint64_t index_bytes = 0;       // S
  Digest index_digest;                 // S
  std::vector<std::uint32_t> devices;  // ordinals
  std::vector<std::uint32_t> packs;    // S: positions in Manifest::packs
  std::string name;
  std::string index;  // S: name of the index file
  std::string shim_build_id;

  friend bool operator==(const SessionRecord&, const SessionRecord&) = default;
};

// A pack that the indexes name. All S.
struct PackRecord {
  PackId pack;
  std::uint64_t file_bytes = 0;
  std::uint64_t chunks = 0;
  std::uint64_t stored_bytes = 0;
  bool own = false;  // written for this image

  friend bool operator==(const PackRecord&, const PackRecord&) = default;
};

// A file of the image directory other than manifest and indexes. All S.
struct FileRecord {
  std::string path;  // relative
  std::uint64_t bytes = 0;
  std::uint32_t mode = 0;
  Digest digest;

  friend bool operator==(const FileRecord&, const FileRecord&) = default;
};

struct Attachment {
  std::string name;
  std::string value;

  friend bool operator==(const Attachment&, const Attachment&) = default;
};

struct Manifest {
  // IMAGE. All S but mode, tag and reason.
  std::string image;
  std::uint32_t owner_uid = 0;
  std::uint32_t owner_gid = 0;
  std::uint64_t created_ms = 0;
  CheckpointMode mode = CheckpointMode::kStop;
  std::uint64_t digest_seed = 0;
  std::uint32_t chunk_bytes = 0;
  std::string tag;
  std::string reason;  // why that mode

  JobInfo job;
  HostInfo host;
  Totals totals;
  std::vector<DeviceRecord> devices;
  std::vector<OpenFileRecord> open_files;
  std::vector<SessionRecord> sessions;
  std::vector<PackRecord> packs;
  std::vector<FileRecord> files;
  std::vector<Attachment> attachments;

  friend bool operator==(const Manifest&, const Manifest&) = default;
};

// Relative, without empty, "." or ".." components: stays inside a directory.
[[nodiscard]] bool IsInnerPath(std::string_view path);

// Writes the manifest to `fd`, an empty file; not fsync. kInvalid for one that
// a reader would refuse.
Status WriteManifest(const Manifest& manifest, const StoreId& store, int fd,
                     const std::string& name);
// `header`, when not null, receives the file's.
Result<Manifest> ReadManifest(ByteSource* source, const std::string& name,
                              FileHeader* header = nullptr);

}  // namespace pos::ckpt

#endif  // CKPT_FORMAT_MANIFEST_H_
