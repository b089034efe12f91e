// What calls wait for. The loading side: lazy_load.cc
#include <algorithm>
#include <iterator>
#include <limits>

#include "ckpt/engine/lazy_load.h"

namespace pos::ckpt {
namespace {

std::uint64_t EndOf(const MemoryRange& range) {
  const std::uint64_t room =
      std::numeric_limits<std::uint64_t>::max() - range.address;
  return range.address + std::min(range.bytes, room);
}

}  // namespace

MemoryWatch::Verdict LazyLoad::BeforeCall(const CallAccess& access) {
  if (all_loaded_.load(std::memory_order_acquire) || access.makes) {
    return Verdict::kGo;
  }
  Calls calls;
  bool go = true;
  {
    MutexLock lock(&mu_);
    waits_for_all_ = false;
    if (access.set == nullptr || access.set->basis != AccessBasis::kProven) {
      go = WantAll();
    } else {
      for (const MemoryRange& range : access.set->reads) {
        go = WantRange(range) && go;
      }
      for (const MemoryRange& range : access.set->writes) {
        go =
            (access.releases ? Release(range, &calls) : WantRange(range)) && go;
      }
    }
    call_waits_ = !go;
    if (!go) changed_.NotifyAll();
  }
  Make(calls);
  return go ? Verdict::kGo : Verdict::kWait;
}

bool LazyLoad::WantAll() {
  waits_for_all_ = true;
  return left_ == 0;
}

bool LazyLoad::Want(std::size_t number) {
  Unit& unit = units_[number];
  if (unit.complete) return true;
  if (!unit.wanted) {
    unit.wanted = true;
    ++wanted_left_;
    wanted_.push_back(number);
  }
  return false;
}

std::map<std::uint64_t, LazyLoad::Place>::iterator LazyLoad::PlaceAt(
    std::uint64_t address) {
  const auto after = places_.upper_bound(address);
  if (after == places_.begin()) return after;
  const auto before = std::prev(after);
  return before->second.end > address ? before : after;
}

bool LazyLoad::WantRange(const MemoryRange& range) {
  if (range.bytes == 0) return true;
  const std::uint64_t end = EndOf(range);
  bool go = true;
  bool elsewhere = false;  // a byte of it is none of the image's
  std::uint64_t at = range.address;
  for (auto it = PlaceAt(at); it != places_.end() && it->first < end; ++it) {
    if (it->second.gone) continue;
    elsewhere = elsewhere || it->first > at;
    at = it->second.end;
    go = Want(it->second.unit) && go;
  }
  elsewhere = elsewhere || at < end;
  if (!elsewhere || shared_left_ == 0) return go;
  // It may be a mapping, made since, of memory that is not loaded yet.
  for (std::size_t i = 0; i < units_.size(); ++i) {
    if (units_[i].shared) go = Want(i) && go;
  }
  return go;
}

bool LazyLoad::Release(const MemoryRange& range, Calls* calls) {
  if (range.bytes == 0) return true;
  const std::uint64_t end = EndOf(range);
  bool go = true;
  for (auto it = PlaceAt(range.address); it != places_.end() && it->first < end;
       ++it) {
    Place& place = it->second;
    Unit& unit = units_[place.unit];
    const bool whole = it->first >= range.address && place.end <= end;
    if (unit.shared || !whole) {
      // Its content lives on somewhere else.
      go = Want(place.unit) && go;
      place.gone = place.gone || (unit.complete && whole);
      continue;
    }
    place.gone = true;
    unit.dropped = unit.dropped || !unit.complete;
    CompleteIfDone(place.unit, calls);
    go = go && (unit.complete || unit.writing == 0);
  }
  return go;
}

}  // namespace pos::ckpt
