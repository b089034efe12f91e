#include "remoting/shim/output.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <span>
#include <vector>

#include "remoting/shim/driver_state.h"

namespace pos::shim {
namespace {

constexpr std::uint64_t kRoomBytes = 2 * wire::kLeaseBytes;

struct Writing {
  // Held while text is fetched and written: the next piece must not overtake.
  // (The one lock that is held while stdio may block.)
  Mutex mu;
  // Threads that hold or want the lock. Raised before text is taken from the
  // runner: a thread whose call was answered later and finds nothing waiting
  // there sees that it is being written.
  std::atomic<std::uint32_t> threads{0};
};

Writing& TheWriting() {
  static Writing* const writing = new Writing;  // leaked: exit handlers
  return *writing;
}

// The bytes of text in `pieces`, which are written. The runner is not trusted.
std::uint64_t Write(std::span<const std::byte> pieces) {
  std::uint64_t written = 0;
  cuda::OutputPiece piece;
  while (pieces.size() > sizeof(piece)) {
    std::memcpy(&piece, pieces.data(), sizeof(piece));
    pieces = pieces.subspan(sizeof(piece));
    const std::size_t bytes = std::min<std::size_t>(piece.bytes, pieces.size());
    std::FILE* const to = piece.kind == cuda::kStandardError ? stderr : stdout;
    // A closed or broken stream is the program's business.
    [[maybe_unused]] const std::size_t n =
        std::fwrite(pieces.data(), 1, bytes, to);
    pieces = pieces.subspan(bytes);
    written += bytes;
  }
  return written;
}

// One request's worth: false when there was nothing or no session.
bool Fetch(std::vector<std::byte>* pieces, std::uint64_t* left) {
  const StagedAnswer staged(kRoomBytes);
  if (!staged.ok()) return false;
  Payload payload = staged.AsPayload();
  payload.despite_fault = true;
  Reply reply;
  const std::int32_t result = Client::Get().Call(
      static_cast<std::uint16_t>(cuda::Op::kDeviceOutput), {}, payload, &reply);
  cuda::DeviceOutputOut out;
  if (result != 0 || reply.bulk_bytes == 0 || reply.bulk_bytes > kRoomBytes ||
      reply.bytes != sizeof(out)) {
    return false;
  }
  std::memcpy(&out, reply.data.data(), sizeof(out));
  *left = out.left_bytes;
  *pieces = staged.Take(reply.bulk_bytes);
  return !pieces->empty();
}

// What was there at the first request; a kernel that prints for ever does not
// keep the caller.
void FetchAndWrite() {
  std::vector<std::byte> pieces;
  std::uint64_t left = 0;
  if (!Fetch(&pieces, &left)) return;
  Write(pieces);
  for (std::uint64_t wanted = left; wanted != 0;) {
    if (!Fetch(&pieces, &left)) return;
    wanted -= std::min(wanted, Write(pieces));
  }
}

}  // namespace

void FlushOutput() {
  if (Client::Get().state() != Client::State::kAttached) return;
  ThreadState* const thread = CurrentThread();
  Writing& writing = TheWriting();
  if (!thread->output_seen &&
      writing.threads.load(std::memory_order_seq_cst) == 0) [[likely]] {
    return;
  }
  const int error = errno;
  writing.threads.fetch_add(1, std::memory_order_seq_cst);
  {
    const MutexLock lock(&writing.mu);
    if (thread->output_seen) {
      FetchAndWrite();
      // The requests have seen the word, too.
      thread->output_seen = false;
    }
  }
  writing.threads.fetch_sub(1, std::memory_order_seq_cst);
  errno = error;
}

}  // namespace pos::shim
