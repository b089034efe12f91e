// The runner's side of the connection to its client: hands out the shared
// memory, then exchanges the session records of remoting/wire/attach.h.
//
// Threads: one.
// Blocking: nothing blocks but sends to a client that does not read, bounded.
#ifndef POS_RUNNER_CLIENT_LINK_H_
#define POS_RUNNER_CLIENT_LINK_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/cuda_impl/parser/session_state.h"
#include "remoting/transport/shm/ring_server.h"
#include "remoting/wire/attach.h"

namespace pos {

class ClientLink {
 public:
  enum class Event {
    kNone,      // nothing that matters
    kReady,     // the client has mapped everything
    kGated,     // it sends no more calls
    kRefusing,  // it cannot gate or detach now
    kDetached,  // it has left all that is shared; the connection is closed
    kGone,      // the connection ended without a word: the process is dead or
                // has replaced itself
    kMalformed  // it sent something that is no record
  };

  // Another descriptor to wait for input on, -1: none. `ready` is called when
  // there is some; false: not any more.
  struct Also {
    int fd = -1;
    std::function<bool()> ready;
  };

  // Refuses an attaching client; `socket` is closed.
  static void Refuse(UniqueFd socket, wire::AttachStatus status,
                     const std::string& text);

  // Takes the connection of a client that asked to attach and sends it what it
  // needs to know.
  Status Accept(UniqueFd socket, const RingServer& ring, int host_fd,
                const cuda::ArenaLayout& layout, std::uint64_t session,
                int device_count);

  // Called by Read for a file that the client sends; false: it is one too many,
  // and the record counts as malformed.
  void SetFileSink(std::function<bool(std::uint64_t, UniqueFd)> sink) {
    on_file_ = std::move(sink);
  }
  [[nodiscard]] bool connected() const { return socket_.valid(); }
  // To wait for input on; -1 while there is no connection.
  [[nodiscard]] int fd() const { return socket_.get(); }
  // Reads one record. Called when the descriptor is readable.
  Event Read();
  Status Send(wire::SessionRecordType type, std::uint32_t epoch);
  // Waits for one of the events a request is answered with. `epoch`: of the
  // request. Late answers to earlier ones are not taken for this one's: a
  // client that stood still answers all that it was asked, one after the other,
  // and opens its gate in between.
  // Meanwhile `also` is served.
  Event WaitAnswer(std::uint32_t epoch, int timeout_ms, const Also& also);
  Event WaitAnswer(std::uint32_t epoch, int timeout_ms) {
    return WaitAnswer(epoch, timeout_ms, Also());
  }

  // From the latest kReady: where the client looks for its verdict, and its pid
  // as it sees itself.
  [[nodiscard]] std::uint64_t verdict_address() const {
    return verdict_address_;
  }
  [[nodiscard]] std::uint64_t client_pid() const { return client_pid_; }
  // From the latest kRefusing: calls that were still inside.
  [[nodiscard]] std::uint64_t inside() const { return inside_; }
  // Of the request that the latest record answers.
  [[nodiscard]] std::uint32_t answered_epoch() const { return answered_epoch_; }
  void Close() { socket_.Reset(); }

 private:
  UniqueFd socket_;
  std::uint64_t verdict_address_ = 0;
  std::uint64_t client_pid_ = 0;
  std::uint64_t inside_ = 0;
  std::uint32_t answered_epoch_ = 0;  // of the latest answer
  bool said_detached_ = false;
  std::function<bool(std::uint64_t, UniqueFd)> on_file_;
};

}  // namespace pos

#endif  // POS_RUNNER_CLIENT_LINK_H_
