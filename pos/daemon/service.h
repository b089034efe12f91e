// posd's control plane: the socket, gRPC on it, and who is calling. What is
// asked goes to a ControlApi.
//
// Threads:   an acceptor and gRPC's own; ControlApi is called on gRPC's.
// Identity:  a call's connection is a Unix socket whose peer the kernel knows.
//            gRPC names it by descriptor ("fd:N") and keeps that open until the
//            last of its calls has returned, so asking the kernel about N
//            during a call cannot meet another connection.
// Bounds:    per user: connections, offers (acceptor.h), calls in progress.
// Progress:  sent from a thread of its own; a client that does not read never
//            holds up the work that it asked for.
// Errors:    a gRPC status with a v1::Error as its details.
//
// Test: tests/pos/daemon/service_test.cc
#ifndef POS_DAEMON_SERVICE_H_
#define POS_DAEMON_SERVICE_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "pos/base/status.h"
#include "pos/daemon/acceptor.h"
#include "pos/daemon/control_api.h"
#include "pos/daemon/offer_table.h"

namespace pos {

class ControlService {
 public:
  struct Options {
    // Its directory has to exist. See SocketFile.
    std::string socket_path;
    mode_t socket_mode = 0666;
    Acceptor::Limits connections;
    OfferTable::Limits offers;
    std::size_t calls_per_uid = 256;
    std::size_t calls_total = 1024;
    // A connection without calls is closed after this time.
    int idle_ms = 300'000;
    // Stop: how long calls may take to answer, then to return.
    int drain_ms = 2'000;
    int stop_ms = 15'000;
  };

  // Serves when it returns. kExists: another posd has the socket. `api`
  // outlives the service.
  static Result<std::unique_ptr<ControlService>> Start(ControlApi* api,
                                                       const Options& options);
  virtual ~ControlService() = default;  // stops

  // No new connections; calls in progress are told that they are cancelled and
  // get `drain_ms` to answer; then their connections are closed. Returns when
  // no call into the ControlApi is left. kTimeout when one does not return
  // within `stop_ms`: its thread, and what it uses, is left alone, the
  // ControlApi has to stay, and the process should end with _exit(2).
  // Idempotent.
  virtual Status Stop() = 0;
};

}  // namespace pos

#endif  // POS_DAEMON_SERVICE_H_
