// How standard streams reach posd: gRPC carries no descriptors, so pos-cli
// offers them on a second connection to the same socket and names the offer's
// ticket in its Run call.
//
//   client                                   posd
//     connect, one sendmsg: StdioOffer +
//     the descriptors (SCM_RIGHTS)     ──▶   keeps the connection, unread
//                                      ◀──   OfferReply
//     Run(ticket) on the gRPC connection ──▶ takes the descriptors out
//     close
//
// Until Run names the ticket the descriptors stay inside the connection: posd
// does not hold them in its own table, and they vanish with the client. An
// offer lives for kOfferLifetimeMs and is used once, by its owner's uid.
//
// Records are in the host's byte order: both ends are on one host.
#ifndef POS_DAEMON_STDIO_OFFER_H_
#define POS_DAEMON_STDIO_OFFER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "pos/base/fd.h"
#include "pos/base/status.h"
#include "pos/daemon/caller.h"

namespace pos {

inline constexpr std::size_t kTicketBytes = 16;
inline constexpr int kOfferLifetimeMs = 30000;

using Ticket = std::array<std::byte, kTicketBytes>;

// First on the connection. Its first byte tells it from HTTP/2's preface.
struct StdioOffer {
  static constexpr std::array<char, 8> kMagic = {'\x01', 'P', 'O', 'S',
                                                 'F',    'D', 'S', '\n'};
  std::array<char, 8> magic = kMagic;
  Ticket ticket{};             // random
  std::uint32_t streams = 0;   // bit 0: stdin, 1: stdout, 2: stderr
  std::uint32_t reserved = 0;  // zero
};
static_assert(sizeof(StdioOffer) == 32);

enum class OfferResult : std::uint32_t {
  kTaken = 0,
  kMalformed = 1,
  kTooMany = 2,  // of this user's are waiting
  kInUse = 3,    // another offer has this ticket
};

struct OfferReply {
  static constexpr std::array<char, 4> kMagic = {'P', 'O', 'S', 'A'};
  std::array<char, 4> magic = kMagic;
  std::uint32_t result = 0;  // OfferResult
};
static_assert(sizeof(OfferReply) == 8);

// What a connection begins with, as far as is known from its first bytes.
enum class Opening { kUndecided, kHttp2, kOffer, kNeither };
[[nodiscard]] Opening ClassifyOpening(std::span<const std::byte> first);
// No more than this is needed to decide.
inline constexpr std::size_t kOpeningBytes = sizeof(StdioOffer);

// A socket connected to posd at `path`. Waits up to `timeout_ms` while posd's
// queue of connections is full. kNoSuch or kClosed: nobody listens there.
Result<UniqueFd> ConnectToPosd(const std::string& path, int timeout_ms);

// The client's part: sends the offer of `fds` (stdin, stdout, stderr; -1: not
// offered) and waits up to `timeout_ms` for posd to have it. Keep the returned
// connection until Run has answered.
Result<UniqueFd> OfferStdio(const std::string& path, const Ticket& ticket,
                            const std::array<int, 3>& fds, int timeout_ms);

// posd's part, when Run names the ticket: receives the offer from `connection`.
// kProto when the descriptors are not those that the record announces.
Result<StdioFds> ReceiveOffer(int connection);

}  // namespace pos

#endif  // POS_DAEMON_STDIO_OFFER_H_
