#include "pos/daemon/offer_table.h"

#include <utility>

namespace pos {
namespace {

// Takes the same time wherever the first difference is.
bool SameTicket(const Ticket& a, const Ticket& b) {
  std::byte difference{0};
  for (std::size_t i = 0; i < a.size(); ++i) difference |= a[i] ^ b[i];
  return difference == std::byte{0};
}

}  // namespace

UniqueFd OfferTable::RemoveAt(std::size_t i) {
  UniqueFd connection = std::move(entries_[i].connection);
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(i));
  return connection;
}

OfferResult OfferTable::Add(std::uint64_t id, uid_t uid, const Ticket& ticket,
                            UniqueFd* connection,
                            void (*taken)(int connection)) {
  MutexLock lock(&mu_);
  std::size_t of_this_uid = 0;
  for (const Entry& entry : entries_) {
    if (entry.uid != uid) continue;
    ++of_this_uid;
    if (SameTicket(entry.ticket, ticket)) return OfferResult::kInUse;
  }
  if (of_this_uid >= limits_.per_uid || entries_.size() >= limits_.total) {
    return OfferResult::kTooMany;
  }
  taken(connection->get());
  entries_.push_back({id, uid, ticket, Deadline::AfterMs(limits_.lifetime_ms),
                      std::move(*connection)});
  return OfferResult::kTaken;
}

Result<UniqueFd> OfferTable::Take(uid_t uid, const Ticket& ticket) {
  MutexLock lock(&mu_);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (entry.uid != uid || !SameTicket(entry.ticket, ticket)) continue;
    if (entry.expires.Passed()) break;  // the acceptor is about to remove it
    return RemoveAt(i);
  }
  return NoSuch("the offer of standard streams is not there any more",
                "run the command again");
}

UniqueFd OfferTable::Drop(std::uint64_t id) {
  MutexLock lock(&mu_);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].id == id) return RemoveAt(i);
  }
  return UniqueFd();
}

UniqueFd OfferTable::TakeExpired() {
  MutexLock lock(&mu_);
  if (entries_.empty() || !entries_.front().expires.Passed()) return UniqueFd();
  return RemoveAt(0);
}

std::optional<Deadline> OfferTable::NextExpiry() const {
  MutexLock lock(&mu_);
  if (entries_.empty()) return std::nullopt;
  return entries_.front().expires;
}

std::size_t OfferTable::size() const {
  MutexLock lock(&mu_);
  return entries_.size();
}

}  // namespace pos
