#include "remoting/shim/copy.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace pos::shim {
namespace {

// Large copies go in pieces, so that copying to staging, the transfer and
// copying from staging overlap.
constexpr std::uint64_t kPieceBytes = 1u << 20;
constexpr std::size_t kPiecesInFlight = 4;

std::byte* Pointer(std::uint64_t address) {
  return reinterpret_cast<std::byte*>(address);
}

CUresult ToDevice(std::uint64_t stream, std::uint64_t dst, std::uint64_t src,
                  std::uint64_t bytes) {
  Client& client = Client::Get();
  if (bytes <= wire::kMaxInlineBytes) {
    return Post(
        cuda::CopyToDeviceArgs{.stream = stream, .dst = dst, .bytes = bytes},
        {.inline_data = {Pointer(src), bytes}});
  }
  while (bytes != 0) {
    const std::uint64_t piece = std::min(bytes, kPieceBytes);
    const std::uint32_t lease = client.AcquireLease(piece, true);
    if (lease == wire::kNoLease) return static_cast<CUresult>(kLostError);
    if (!client.WithStaging(lease, [&](std::byte* staged) {
          std::memcpy(staged, Pointer(src), piece);
        })) {
      return static_cast<CUresult>(kLostError);
    }
    // The runner frees the lease when the bytes are on the device.
    const CUresult result = Post(
        cuda::CopyToDeviceArgs{.stream = stream, .dst = dst, .bytes = piece},
        {.inline_data = {},
         .lease = lease,
         .bulk_bytes = piece,
         .flags = wire::kFrameBulkIn});
    if (result != CUDA_SUCCESS) {
      client.ReleaseLease(lease);
      return result;
    }
    dst += piece;
    src += piece;
    bytes -= piece;
  }
  return CUDA_SUCCESS;
}

// Pieces under way, oldest first.
class Inbound {
 public:
  explicit Inbound(std::uint64_t stream) : stream_(stream) {}

  CUresult Request(std::uint64_t src, std::byte* to, std::uint64_t bytes) {
    Client& client = Client::Get();
    std::uint32_t lease = client.AcquireLease(bytes, count_ == 0);
    while (lease == wire::kNoLease && count_ != 0) {
      // Nobody waits for staging while it holds some: that could deadlock.
      const CUresult result = TakeOldest();
      if (result != CUDA_SUCCESS) return result;
      lease = client.AcquireLease(bytes, count_ == 0);
    }
    if (lease == wire::kNoLease) return static_cast<CUresult>(kLostError);
    const cuda::CopyFromDeviceArgs args{
        .stream = stream_, .src = src, .bytes = bytes};
    std::uint32_t slot = wire::kNoSlot;
    const std::int32_t error =
        client.Begin(static_cast<std::uint16_t>(cuda::Op::kCopyFromDevice),
                     std::as_bytes(std::span(&args, 1)),
                     {.inline_data = {},
                      .lease = lease,
                      .bulk_bytes = bytes,
                      .flags = wire::kFrameBulkOut},
                     &slot);
    if (error != 0) {
      client.ReleaseLease(lease);
      return static_cast<CUresult>(error);
    }
    pieces_[(first_ + count_) % kPiecesInFlight] = {slot, lease, to, bytes};
    ++count_;
    return count_ == kPiecesInFlight ? TakeOldest() : CUDA_SUCCESS;
  }

  CUresult TakeOldest() {
    Client& client = Client::Get();
    const Piece piece = pieces_[first_];
    first_ = (first_ + 1) % kPiecesInFlight;
    --count_;
    Reply reply;
    std::int32_t result = client.Wait(piece.slot, &reply);
    if (result == 0 &&
        !client.WithStaging(piece.lease, [&](const std::byte* staged) {
          std::memcpy(piece.to, staged, piece.bytes);
        })) {
      result = kLostError;
    }
    client.ReleaseLease(piece.lease);
    return static_cast<CUresult>(result);
  }

  // Takes what is still under way, whatever came before.
  CUresult Finish(CUresult result) {
    while (count_ != 0) {
      const CUresult r = TakeOldest();
      if (result == CUDA_SUCCESS) result = r;
    }
    return result;
  }

 private:
  struct Piece {
    std::uint32_t slot;
    std::uint32_t lease;
    std::byte* to;
    std::uint64_t bytes;
  };
  const std::uint64_t stream_;
  std::array<Piece, kPiecesInFlight> pieces_{};
  std::size_t first_ = 0;
  std::size_t count_ = 0;
};

CUresult FromDevice(std::uint64_t stream, std::uint64_t dst, std::uint64_t src,
                    std::uint64_t bytes) {
  if (bytes <= wire::kSlotDataBytes) {
    const cuda::CopyFromDeviceArgs args{
        .stream = stream, .src = src, .bytes = bytes};
    Reply reply;
    const std::int32_t result = Client::Get().Call(
        static_cast<std::uint16_t>(cuda::Op::kCopyFromDevice),
        std::as_bytes(std::span(&args, 1)), {}, &reply);
    if (result == 0) std::memcpy(Pointer(dst), reply.data.data(), bytes);
    return static_cast<CUresult>(result);
  }
  Inbound inbound(stream);
  CUresult result = CUDA_SUCCESS;
  while (bytes != 0 && result == CUDA_SUCCESS) {
    const std::uint64_t piece = std::min(bytes, kPieceBytes);
    result = inbound.Request(src, Pointer(dst), piece);
    src += piece;
    dst += piece;
    bytes -= piece;
  }
  return inbound.Finish(result);
}

CUresult Within(std::uint64_t stream, std::uint64_t dst, std::uint64_t src,
                std::uint64_t bytes, bool wait) {
  const cuda::CopyArgs args{
      .stream = stream, .dst = dst, .src = src, .bytes = bytes};
  return wait ? CallNoOut(args) : Post(args);
}

}  // namespace

Where Classify(std::uint64_t address) {
  const Client& client = Client::Get();
  if (address - client.arena_base() < client.arena_bytes()) {
    return Where::kDevice;
  }
  if (address - client.host_base() < client.host_bytes()) {
    return Where::kPinned;
  }
  // A real driver puts variables of modules where it likes.
  Range range;
  if (Driver::Get().ranges.Find(address, &range)) {
    return range.IsHost() ? Where::kPinned : Where::kDevice;
  }
  return Where::kPageable;
}

CUresult CopyBytes(std::uint64_t stream, std::uint64_t dst, std::uint64_t src,
                   std::uint64_t bytes, bool wait) {
  if (bytes == 0) return CUDA_SUCCESS;
  const Where to = Classify(dst);
  const Where from = Classify(src);
  const RangeMap& ranges = Driver::Get().ranges;
  if ((to != Where::kPageable && !ranges.Holds(dst, bytes)) ||
      (from != Where::kPageable && !ranges.Holds(src, bytes))) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (to == Where::kPageable && from == Where::kPageable) {
    if (dst == 0 || src == 0) return CUDA_ERROR_INVALID_VALUE;
    const CUresult result =
        CallNoOut(cuda::StreamSynchronizeArgs{.stream = stream});
    if (result == CUDA_SUCCESS) {
      std::memmove(Pointer(dst), Pointer(src), bytes);
    }
    return result;
  }
  if (to == Where::kPageable) {
    if (dst == 0) return CUDA_ERROR_INVALID_VALUE;
    return FromDevice(stream, dst, src, bytes);
  }
  if (from == Where::kPageable) {
    if (src == 0) return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = ToDevice(stream, dst, src, bytes);
    if (result != CUDA_SUCCESS || !wait) return result;
    // CUDA promises less where the target is the device's (staged is enough),
    // but programs go on in streams that are not ordered after this one.
    return CallNoOut(cuda::StreamSynchronizeArgs{.stream = stream});
  }
  // Device to device returns before it is done, as CUDA's does.
  const bool host = to == Where::kPinned || from == Where::kPinned;
  return Within(stream, dst, src, bytes, wait && host);
}

CUresult WaitForText(const Context& context, std::uint64_t stream, bool wait) {
  if (!wait || !context.prints.load(std::memory_order_relaxed)) {
    return CUDA_SUCCESS;
  }
  return CallNoOut(cuda::StreamSynchronizeArgs{.stream = stream});
}

CUresult FillBytes(std::uint64_t stream, const FillShape& shape) {
  if (shape.count == 0 || shape.rows == 0) return CUDA_SUCCESS;
  constexpr std::uint64_t kLimit = std::uint64_t{1} << 46;
  if (shape.count > kLimit || shape.rows > kLimit ||
      shape.dst % shape.width != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const std::uint64_t row = shape.count * shape.width;
  if (shape.rows > 1 && (shape.pitch < row || shape.pitch % shape.width != 0 ||
                         shape.pitch > kLimit / shape.rows)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const std::uint64_t extent = (shape.rows - 1) * shape.pitch + row;
  if (!Driver::Get().ranges.Holds(shape.dst, extent)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return Post(cuda::FillArgs{.stream = stream,
                             .dst = shape.dst,
                             .count = shape.count,
                             .rows = shape.rows,
                             .pitch = shape.pitch,
                             .value = shape.value,
                             .width = shape.width});
}

}  // namespace pos::shim
