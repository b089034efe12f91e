// Leases, pins and holds: what keeps an image from being removed.
#include <fcntl.h>

#include <algorithm>
#include <array>

#include "ckpt/format/record.h"
#include "ckpt/store/draft.h"
#include "ckpt/store/store.h"
#include "pos/base/bytes.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/base/process.h"

namespace pos::ckpt {
namespace {

constexpr std::uint32_t kRecordPin = 0x0301;

Result<PinInfo> ReadPin(const std::string& path) {
  POS_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<FdSource> source,
                       FdSource::Open(fd.get(), path));
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<RecordReader> reader,
                       RecordReader::Open(source.get(), FileKind::kPins, path));
  Record record;
  POS_ASSIGN_OR_RETURN(const bool any, reader->Next(&record));
  if (!any || record.type != kRecordPin) {
    return Corrupt(path + ": it has no PIN record");
  }
  ByteReader in(record.payload);
  PinInfo pin;
  pin.pin = in.GetString();
  pin.image = in.GetString();
  pin.holder = in.GetString();
  pin.reason = in.GetString();
  pin.created_ms = in.Get<std::uint64_t>();
  if (!in.ok()) return reader->BadRecord(record, "it is too short");
  return pin;
}

}  // namespace

void ImageLease::Release() {
  if (store_ != nullptr) store_->ReleaseLease(number_);
  store_ = nullptr;
}

void Store::ReleaseLease(std::uint64_t number) {
  MutexLock lock(&mu_);
  leases_.erase(number);
}

const PinInfo* Store::HolderOf(const std::string& image) const {
  for (const auto& [number, lease] : leases_) {
    if (lease.image == image) return &lease;
  }
  for (const auto& [name, pin] : pins_) {
    if (pin.image == image) return &pin;
  }
  return nullptr;
}

Result<ImageLease> Store::Lease(const std::string& image,
                                const std::string& holder) {
  MutexLock lock(&mu_);
  if (!images_.contains(image)) {
    return NoSuch("there is no image " + image, "see pos-cli images ls");
  }
  PinInfo lease;
  lease.image = image;
  lease.holder = holder;
  lease.created_ms = WallClockMs();
  const std::uint64_t number = next_lease_++;
  leases_[number] = lease;
  return ImageLease(this, number);
}

Result<std::string> Store::Keep(const std::string& image,
                                const std::string& holder,
                                const std::string& reason) {
  std::array<std::byte, 8> random;
  RandomBytes(random);
  PinInfo pin;
  pin.pin = "p" + HexBytes(random);
  pin.image = image;
  pin.holder = holder;
  pin.reason = reason;
  pin.created_ms = WallClockMs();
  // The lease bridges the time until the pin is on the disk.
  POS_ASSIGN_OR_RETURN(const ImageLease lease, Lease(image, holder));
  ByteWriter out;
  out.PutString(pin.pin);
  out.PutString(pin.image);
  out.PutString(pin.holder);
  out.PutString(pin.reason);
  out.Put(pin.created_ms);
  POS_RETURN_IF_ERROR(WriteRecordFile(PinPath(pin.pin), FileKind::kPins, id_,
                                      pin.created_ms, kRecordPin, out.bytes()));
  MutexLock lock(&mu_);
  pins_[pin.pin] = pin;
  return pin.pin;
}

Status Store::Drop(const std::string& pin) {
  {
    MutexLock lock(&mu_);
    if (!pins_.contains(pin)) return NoSuch("there is no pin " + pin);
  }
  // A pin that is on the disk must not be forgotten: it comes back with the
  // next start, when nobody is left to drop it.
  POS_RETURN_IF_ERROR(RemoveFile(PinPath(pin)));
  POS_RETURN_IF_ERROR(SyncDirectory(JoinPath(path_, "pins")));
  MutexLock lock(&mu_);
  pins_.erase(pin);
  return {};
}

std::vector<PinInfo> Store::Pins() const {
  std::vector<PinInfo> list;
  MutexLock lock(&mu_);
  for (const auto& [number, lease] : leases_) list.push_back(lease);
  for (const auto& [name, pin] : pins_) list.push_back(pin);
  return list;
}

Status Store::LoadPins() {
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListDirectory(JoinPath(path_, "pins")));
  for (const std::string& name : names) {
    const std::string path = PinPath(name);
    if (name.ends_with(".tmp")) {
      POS_RETURN_IF_ERROR(RemoveFile(path));
      continue;
    }
    const Result<PinInfo> pin = ReadPin(path);
    // A pin that cannot be read might be for any image. Nothing may go until
    // somebody has looked.
    POS_RETURN_IF_ERROR(pin.status());
    MutexLock lock(&mu_);
    if (pin->pin == name && images_.contains(pin->image)) {
      pins_[name] = *pin;
      continue;
    }
    POS_LOG(kWarning, "a pin without its image is dropped",
            {{"pin", name}, {"image", pin->image}});
    POS_RETURN_IF_ERROR(RemoveFile(path));
  }
  return {};
}

ChunkHold::~ChunkHold() {
  MutexLock lock(&store_->mu_);
  for (const std::string& image : images_) {
    store_->holds_.erase(store_->holds_.find(image));
  }
}

std::vector<ImageSummary> ChunkHold::HoldAll(
    const std::function<bool(const ImageSummary&)>& wanted) {
  std::vector<ImageSummary> held;
  MutexLock lock(&store_->mu_);
  for (auto it = store_->images_.rbegin(); it != store_->images_.rend(); ++it) {
    if (!wanted(it->second)) continue;
    store_->holds_.insert(it->first);
    Adopt(it->first);
    held.push_back(it->second);
  }
  return held;
}

}  // namespace pos::ckpt
