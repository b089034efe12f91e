// Offers of standard streams that wait for the Run that names them.
//
// Threads:   any. The acceptor adds, expires and drops; calls take.
// Ownership: owns the connections of the offers, each with one unread
//            StdioOffer in it. A connection that leaves the table is returned,
//            never closed here: closing what a stranger has filled is the
//            acceptor's art.
// Blocking:  never.
//
// Test: tests/pos/daemon/offer_table_test.cc
#ifndef POS_DAEMON_OFFER_TABLE_H_
#define POS_DAEMON_OFFER_TABLE_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "pos/base/clock.h"
#include "pos/base/fd.h"
#include "pos/base/mutex.h"
#include "pos/base/status.h"
#include "pos/daemon/stdio_offer.h"

namespace pos {

class OfferTable {
 public:
  struct Limits {
    std::size_t per_uid = 32;
    std::size_t total = 1024;
    std::uint64_t lifetime_ms = kOfferLifetimeMs;
  };

  explicit OfferTable(const Limits& limits) : limits_(limits) {}
  OfferTable(const OfferTable&) = delete;
  OfferTable& operator=(const OfferTable&) = delete;

  // `id` is the acceptor's name for the connection. When kTaken, `taken` is
  // called with the connection before anybody can take it out again, and must
  // not block; else `connection` is left untouched.
  OfferResult Add(std::uint64_t id, uid_t uid, const Ticket& ticket,
                  UniqueFd* connection, void (*taken)(int connection))
      POS_EXCLUDES(mu_);

  // The connection of that user's offer, which is then gone. kNoSuch for a
  // ticket that is unknown, used, expired, or another user's.
  Result<UniqueFd> Take(uid_t uid, const Ticket& ticket) POS_EXCLUDES(mu_);

  // Removes the offer that came on connection `id`; invalid when it is not here
  // any more.
  UniqueFd Drop(std::uint64_t id) POS_EXCLUDES(mu_);

  // Removes one offer whose time is over; invalid when there is none.
  UniqueFd TakeExpired() POS_EXCLUDES(mu_);
  // When the next one expires; none when the table is empty.
  [[nodiscard]] std::optional<Deadline> NextExpiry() const POS_EXCLUDES(mu_);

  [[nodiscard]] std::size_t size() const POS_EXCLUDES(mu_);

 private:
  struct Entry {
    std::uint64_t id = 0;
    uid_t uid = 0;
    Ticket ticket{};
    Deadline expires;
    UniqueFd connection;
  };

  UniqueFd RemoveAt(std::size_t i) POS_REQUIRES(mu_);

  const Limits limits_;
  mutable Mutex mu_;
  // Oldest first: all live equally long.
  std::vector<Entry> entries_ POS_GUARDED_BY(mu_);
};

}  // namespace pos

#endif  // POS_DAEMON_OFFER_TABLE_H_
