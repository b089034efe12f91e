#include "ckpt/engine/copy_lane.h"

#include <algorithm>
#include <utility>

#include "pos/base/log.h"

namespace pos::ckpt {
namespace {

constexpr std::uint64_t kGranule = Device::kMapGranularity;
// Places in the shadow are multiples of this, as blocks of memory are.
constexpr std::uint64_t kPlaceAlign = 512;

}  // namespace

Result<std::unique_ptr<CopyLane>> CopyLane::Open(Session* session, int device,
                                                 std::uint64_t shadow_bytes,
                                                 std::span<std::byte> buffers,
                                                 DoneFunction done) {
  std::unique_ptr<CopyLane> lane(
      new CopyLane(session, device, std::move(done)));
  POS_RETURN_IF_ERROR(lane->Init(shadow_bytes));
  lane->Pin(buffers);
  return lane;
}

Status CopyLane::Init(std::uint64_t shadow_bytes) {
  Device* const device = session_->device(device_);
  POS_ASSIGN_OR_RETURN(context_, device->CreateContext(0, &sink_));
  POS_ASSIGN_OR_RETURN(out_, context_->CreateStream(kStreamNonBlocking, 0));
  POS_ASSIGN_OR_RETURN(preserve_,
                       context_->CreateStream(kStreamNonBlocking, 0));
  POS_ASSIGN_OR_RETURN(copied_, context_->CreateEvent(kEventDisableTiming));
  POS_ASSIGN_OR_RETURN(preserved_, context_->CreateEvent(kEventDisableTiming));
  shadow_bytes = shadow_bytes / kGranule * kGranule;
  // Memory that somebody else needs is not worth a refusal.
  for (; shadow_bytes >= kGranule;
       shadow_bytes = shadow_bytes / 2 / kGranule * kGranule) {
    const Status status = OpenShadow(shadow_bytes);
    // Who has not answered yet will not answer sooner for less, and the job
    // stands still.
    if (status.ok() || status.code() == Code::kTimeout) break;
    if (status.code() != Code::kOutOfMemory) return status;
  }
  return {};
}

void CopyLane::Pin(std::span<std::byte> buffers) {
  Device* const device = session_->device(device_);
  if (!device->PlacesVariables()) return;  // no driver
  const auto at = reinterpret_cast<DeviceAddress>(buffers.data());
  const Status status = device->MapHost(at, buffers.size());
  if (status.ok()) {
    pinned_ = buffers;
  } else {
    POS_LOG(kInfo, "buffers of a checkpoint are not pinned",
            {{"why", status.message()}});
  }
}

Status CopyLane::OpenShadow(std::uint64_t bytes) {
  POS_ASSIGN_OR_RETURN(shadow_at_, session_->TakeScratch(device_, bytes));
  Device* const device = session_->device(device_);
  const Status status = device->Map(shadow_at_, bytes);
  if (!status.ok()) {
    session_->GiveBackScratchMemory(device_, bytes);
    session_->GiveBackScratchRange(device_, std::exchange(shadow_at_, 0));
    return status;
  }
  device->AddAllocation(shadow_at_, bytes);
  shadow_bytes_ = bytes;
  shadow_.emplace(shadow_at_, bytes, kPlaceAlign);
  return {};
}

CopyLane::~CopyLane() {
  out_.reset();
  preserve_.reset();
  copied_.reset();
  preserved_.reset();
  // Waits until none of its work is left.
  context_.reset();
  if (!pinned_.empty()) {
    session_->device(device_)
        ->UnmapHost(reinterpret_cast<DeviceAddress>(pinned_.data()),
                    pinned_.size())
        .IgnoreError();
  }
  ReturnShadowMemory();
  if (shadow_at_ != 0) session_->GiveBackScratchRange(device_, shadow_at_);
}

void CopyLane::ReturnShadowMemory() {
  if (shadow_bytes_ == 0) return;
  Device* const device = session_->device(device_);
  device->RemoveAllocation(shadow_at_);
  const Status status = device->Unmap(shadow_at_, shadow_bytes_);
  if (!status.ok()) {
    POS_LOG(kError, "memory of a checkpoint is not given back",
            {{"why", status.ToString()}});
  }
  session_->GiveBackScratchMemory(device_, shadow_bytes_);
  shadow_bytes_ = 0;
  shadow_.reset();
}

bool CopyLane::CloseShadow() {
  closed_ = true;
  if (shadow_bytes_ == 0 || shadow_used() != 0) return false;
  ReturnShadowMemory();
  return true;
}

void CopyLane::CopyOut(DeviceAddress from, void* to, std::uint64_t bytes,
                       std::uint64_t token) {
  out_->Copy(reinterpret_cast<DeviceAddress>(to), from, bytes, token);
}

std::optional<DeviceAddress> CopyLane::Preserve(DeviceAddress from,
                                                std::uint64_t bytes,
                                                std::uint64_t token) {
  if (closed_ || !shadow_) return std::nullopt;
  const std::optional<std::uint64_t> place =
      shadow_->Allocate(shadow_->RoundUp(bytes));
  if (!place) return std::nullopt;
  preserve_->Copy(*place, from, bytes, token);
  return *place;
}

void CopyLane::MakeWaitForCopies(DeviceStream* stream) {
  out_->RecordEvent(copied_.get(), 0);
  stream->WaitEvent(copied_.get(), 0);
}

void CopyLane::MakeWaitForPreserving(DeviceStream* stream) {
  preserve_->RecordEvent(preserved_.get(), 0);
  stream->WaitEvent(preserved_.get(), 0);
}

}  // namespace pos::ckpt
