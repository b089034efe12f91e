// The loading side. What calls wait for: lazy_watch.cc
#include "ckpt/engine/lazy_load.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "ckpt/pack/threads.h"
#include "pos/base/clock.h"

namespace pos::ckpt {
namespace {

constexpr std::size_t kNoUnit = std::numeric_limits<std::size_t>::max();

}  // namespace

Result<std::unique_ptr<LazyLoad>> LazyLoad::Create(
    std::unique_ptr<SessionImage> image, const std::vector<Target>& targets,
    const LazyLoadOptions& options) {
  std::unique_ptr<LazyLoad> load(new LazyLoad(std::move(image), options));
  POS_RETURN_IF_ERROR(load->MakePlan(targets));
  POS_RETURN_IF_ERROR(load->StartThreads());
  return load;
}

LazyLoad::~LazyLoad() { Stop(); }

Status LazyLoad::MakePlan(const std::vector<Target>& targets) {
  MutexLock plan(&plan_mu_);
  MutexLock lock(&mu_);
  for (const Target& target : targets) {
    if (target.region >= image_->map().regions().size()) {
      return Invalid("region " + std::to_string(target.region) +
                     " is not in the image");
    }
  }
  MakeUnits(targets);
  POS_RETURN_IF_ERROR(ReadIndex());
  OrderUnits();
  return {};
}

void LazyLoad::MakeUnits(const std::vector<Target>& targets) {
  std::map<std::uint64_t, std::size_t> shared;
  for (const Target& target : targets) {
    std::size_t number = units_.size();
    if (target.shared != 0) {
      number = shared.try_emplace(target.shared, number).first->second;
    }
    if (number == units_.size()) {
      units_.emplace_back();
      cursors_.emplace_back();
    }
    units_[number].eager = target.eager;
    units_[number].shared = target.shared != 0;
    cursors_[number].targets.push_back(target);
    if (target.eager) continue;
    const Region& region = image_->map().regions()[target.region];
    places_[region.address] = {region.address + region.bytes, number};
  }
}

Status LazyLoad::ReadIndex() {
  std::map<std::size_t, std::size_t> units;  // by region
  for (std::size_t i = 0; i < cursors_.size(); ++i) {
    for (const Target& target : cursors_[i].targets) units[target.region] = i;
  }
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<IndexReader> index,
                       image_->OpenIndex());
  std::size_t regions = 0;
  for (;;) {
    POS_ASSIGN_OR_RETURN(const IndexReader::What what, index->Next());
    if (what == IndexReader::What::kEnd) return {};
    if (what == IndexReader::What::kRegion) {
      ++regions;
      continue;
    }
    const ChunkEntry& entry = index->entry();
    if (entry.zero()) continue;
    POS_RETURN_IF_ERROR(image_->packs()
                            .Find(index->packs()[entry.ref.pack], entry.ref,
                                  index->head().digest_seed)
                            .status());
    const auto unit = units.find(regions - 1);
    if (unit == units.end()) continue;
    Unit& u = units_[unit->second];
    u.data_bytes += entry.bytes;
    if (entry.rank != 0) u.rank = std::min(u.rank, entry.rank);
  }
}

void LazyLoad::OrderUnits() {
  for (std::size_t i = 0; i < units_.size(); ++i) {
    Unit& unit = units_[i];
    unit.complete = unit.data_bytes == 0;  // memory is zero as it comes
    if (unit.complete) continue;
    ++left_;
    total_bytes_ += unit.data_bytes;
    shared_left_ += unit.shared ? 1 : 0;
    if (unit.eager) {
      Want(i);
    } else {
      order_.push_back(i);
    }
  }
  // Those that no order is known of come last, by address.
  std::stable_sort(order_.begin(), order_.end(),
                   [this](std::size_t a, std::size_t b) {
                     mu_.AssertHeld();
                     return units_[a].rank < units_[b].rank;
                   });
}

Status LazyLoad::StartThreads() {
  const unsigned count =
      options_.threads != 0 ? options_.threads : std::max(2u, DefaultThreads());
  for (unsigned i = 0; i < count; ++i) {
    POS_ASSIGN_OR_RETURN(std::thread thread, StartThread([this] { Run(); }));
    threads_.push_back(std::move(thread));
  }
  return {};
}

Status LazyLoad::LoadEager() {
  MutexLock lock(&mu_);
  while (wanted_left_ != 0 && status_.ok()) changed_.Wait(&mu_);
  return status_;
}

void LazyLoad::Begin(Hooks hooks) {
  Calls calls;
  {
    MutexLock lock(&mu_);
    hooks_ = std::move(hooks);
    begun_ = true;
    calls.ended = left_ == 0;
    ended_ = ended_ || calls.ended;
    if (calls.ended) all_loaded_.store(true, std::memory_order_release);
    changed_.NotifyAll();
  }
  Make(calls);
}

void LazyLoad::Stop() {
  {
    MutexLock lock(&mu_);
    stopped_ = true;
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

LazyLoad::Progress LazyLoad::progress() const {
  MutexLock lock(&mu_);
  return {loaded_bytes_, total_bytes_, ended_, status_};
}

void LazyLoad::Run() {
  ChunkMap::Reader reader(&image_->map());
  for (;;) {
    Piece piece;
    const Result<bool> taken = Take(&piece);
    if (taken.ok() && !*taken) return;
    const Status status =
        taken.ok() ? LoadPiece(piece, &reader) : taken.status();
    if (!status.ok()) {
      Fail(status);
      return;
    }
  }
}

std::size_t LazyLoad::NextUnit() {
  const auto has_more = [this](std::size_t i) {
    mu_.AssertHeld();
    const Unit& unit = units_[i];
    return !unit.complete && !unit.dropped &&
           unit.taken_bytes < unit.data_bytes;
  };
  while (!wanted_.empty()) {
    if (has_more(wanted_.front())) return wanted_.front();
    wanted_.pop_front();
  }
  if (!begun_) return kNoUnit;
  for (; next_ < order_.size(); ++next_) {
    if (has_more(order_[next_])) return order_[next_];
  }
  return kNoUnit;
}

std::uint64_t LazyLoad::LimitLeftNs() const {
  const std::uint64_t now = MonotonicNs();
  return free_at_ns_ > now ? free_at_ns_ - now : 0;
}

bool LazyLoad::ChooseUnit(std::size_t* unit) {
  MutexLock lock(&mu_);
  for (;;) {
    if (stopped_ || !status_.ok()) return false;
    *unit = NextUnit();
    if (*unit == kNoUnit) {
      if (begun_) return false;
      changed_.Wait(&mu_);
      continue;
    }
    const std::uint64_t left_ns = units_[*unit].eager ? 0 : LimitLeftNs();
    if (left_ns == 0) return true;
    changed_.WaitFor(&mu_, std::chrono::nanoseconds(left_ns));
  }
}

Status LazyLoad::NextEntry(std::size_t unit, Piece* piece) {
  Cursor& cursor = cursors_[unit];
  for (; cursor.target < cursor.targets.size(); ++cursor.target) {
    const Target& target = cursor.targets[cursor.target];
    const Region& region = image_->map().regions()[target.region];
    while (cursor.offset < region.bytes) {
      POS_ASSIGN_OR_RETURN(piece->entry,
                           image_->map().Find(target.region, cursor.offset));
      cursor.offset = piece->entry.offset + piece->entry.bytes;
      if (piece->entry.zero()) continue;
      piece->unit = unit;
      piece->target = target;
      return {};
    }
    cursor.offset = 0;
  }
  return Corrupt("the index has changed since it was checked");
}

Result<bool> LazyLoad::Take(Piece* piece) {
  MutexLock plan(&plan_mu_);
  for (;;) {
    std::size_t unit = 0;
    if (!ChooseUnit(&unit)) return false;
    POS_RETURN_IF_ERROR(NextEntry(unit, piece));
    MutexLock lock(&mu_);
    Unit& u = units_[unit];
    if (u.dropped) continue;
    u.taken_bytes += piece->entry.bytes;
    ++u.flying;
    if (!u.eager && options_.bytes_per_second != 0) {
      free_at_ns_ =
          std::max(free_at_ns_, MonotonicNs()) +
          piece->entry.bytes * 1'000'000'000 / options_.bytes_per_second;
    }
    return true;
  }
}

Status LazyLoad::LoadPiece(const Piece& piece, ChunkMap::Reader* reader) {
  const Region& region = image_->map().regions()[piece.target.region];
  const auto where = [&] {
    return std::string(RegionKindName(region.kind)) + " at byte " +
           std::to_string(piece.entry.offset);
  };
  const Result<std::span<const std::byte>> data = reader->Read(piece.entry);
  bool write = false;
  {
    MutexLock lock(&mu_);
    Unit& unit = units_[piece.unit];
    if (!unit.dropped) {
      if (!data.ok()) return data.status().WithContext(where());
      if (stopped_) return {};
      write = true;
      ++unit.writing;
    }
  }
  Status status;
  if (write) {
    const std::uint64_t address = region.address + piece.entry.offset;
    if (piece.target.device != nullptr) {
      status = piece.target.device->WriteBeside(address, *data);
    } else {
      std::memcpy(reinterpret_cast<void*>(address), data->data(), data->size());
    }
  }
  EndPiece(piece, write, status.ok());
  return status.ok() ? status : status.WithContext(where());
}

void LazyLoad::EndPiece(const Piece& piece, bool began, bool written) {
  Calls calls;
  {
    MutexLock lock(&mu_);
    Unit& unit = units_[piece.unit];
    --unit.flying;
    if (began) --unit.writing;
    if (unit.dropped) {
      calls.wake = call_waits_ && unit.writing == 0;
    } else if (written) {
      unit.loaded_bytes += piece.entry.bytes;
      loaded_bytes_ += piece.entry.bytes;
    }
    CompleteIfDone(piece.unit, &calls);
  }
  Make(calls);
}

void LazyLoad::CompleteIfDone(std::size_t number, Calls* calls) {
  Unit& unit = units_[number];
  const bool loaded = unit.loaded_bytes == unit.data_bytes;
  if (unit.complete || unit.flying != 0 || (!loaded && !unit.dropped)) return;
  unit.complete = true;
  loaded_bytes_ += unit.data_bytes - unit.loaded_bytes;
  --left_;
  if (unit.shared) --shared_left_;
  if (unit.wanted) --wanted_left_;
  changed_.NotifyAll();  // LoadEager
  if (call_waits_ && (waits_for_all_ ? left_ == 0 : wanted_left_ == 0)) {
    calls->wake = true;
  }
  if (left_ != 0 || !begun_ || ended_) return;
  all_loaded_.store(true, std::memory_order_release);
  ended_ = true;
  calls->ended = true;
}

void LazyLoad::Fail(const Status& status) {
  Calls calls;
  {
    MutexLock lock(&mu_);
    if (!status_.ok() || stopped_) return;
    status_ = status;
    calls.ended = begun_;
    ended_ = true;
    changed_.NotifyAll();
  }
  Make(calls);
}

void LazyLoad::Make(const Calls& calls) {
  Hooks hooks;
  {
    MutexLock lock(&mu_);
    if (calls.wake || calls.ended) hooks = hooks_;
  }
  if (calls.wake && hooks.wake) hooks.wake();
  if (calls.ended && hooks.ended) hooks.ended();
}

}  // namespace pos::ckpt
