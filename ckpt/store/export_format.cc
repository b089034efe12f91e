#include "ckpt/store/export_format.h"

#include <cstring>

namespace pos::ckpt {

std::vector<std::byte> ExportHead::Encode() const {
  ByteWriter out;
  out.Put(salt);
  out.Put(key_id);
  out.Put(crypt);
  out.Put(owner_uid);
  out.PutString(image);
  return out.Take();
}

bool ExportHead::Decode(std::span<const std::byte> payload, ExportHead* head) {
  ByteReader in(payload);
  head->salt = in.Get<decltype(head->salt)>();
  head->key_id = in.Get<KeyId>();
  head->crypt = in.Get<std::uint32_t>();
  head->owner_uid = in.Get<std::uint32_t>();
  head->image = in.GetString();
  return in.ok();
}

std::vector<std::byte> ExportPart::Encode() const {
  ByteWriter out;
  out.Put(kind);
  out.Put(number);
  out.Put(mode);
  out.Put(std::uint32_t{0});
  out.Put(bytes);
  out.PutString(path);
  return out.Take();
}

bool ExportPart::Decode(std::span<const std::byte> payload, ExportPart* part) {
  ByteReader in(payload);
  part->kind = in.Get<std::uint32_t>();
  part->number = in.Get<std::uint32_t>();
  part->mode = in.Get<std::uint32_t>();
  in.Get<std::uint32_t>();
  part->bytes = in.Get<std::uint64_t>();
  part->path = in.GetString();
  return in.ok();
}

std::vector<std::byte> ExportChunk::Encode() const {
  ByteWriter out;
  out.Put(bytes);
  out.Put(stored);
  out.Put(rank);
  out.Put(codec);
  out.Put(std::array<std::uint8_t, 7>{});
  out.Put(digest.bytes);
  out.Put(sum);
  return out.Take();
}

bool ExportChunk::Decode(std::span<const std::byte> payload,
                         ExportChunk* chunk) {
  ByteReader in(payload);
  chunk->bytes = in.Get<std::uint64_t>();
  chunk->stored = in.Get<std::uint32_t>();
  chunk->rank = in.Get<std::uint32_t>();
  chunk->codec = in.Get<std::uint8_t>();
  in.GetRaw(7);
  chunk->digest.bytes = in.Get<decltype(chunk->digest.bytes)>();
  chunk->sum = in.Get<std::uint64_t>();
  return in.ok();
}

std::vector<std::byte> EncodeRegion(const Region& region) {
  ByteWriter out;
  out.Put(static_cast<std::uint32_t>(region.kind));
  out.Put(region.device);
  out.Put(region.address);
  out.Put(region.bytes);
  out.Put(region.flags);
  out.PutString(region.name);
  return out.Take();
}

bool DecodeRegion(std::span<const std::byte> payload, Region* region) {
  ByteReader in(payload);
  const auto kind = in.Get<std::uint32_t>();
  region->device = in.Get<std::uint32_t>();
  region->address = in.Get<std::uint64_t>();
  region->bytes = in.Get<std::uint64_t>();
  region->flags = in.Get<std::uint64_t>();
  region->name = in.GetString();
  region->kind = static_cast<RegionKind>(kind);
  return in.ok() && region->name.size() <= kMaxRegionName && kind >= 1 &&
         kind <= static_cast<std::uint32_t>(RegionKind::kDeviceArray);
}

ExportMac::ExportMac(const Secret& key, const ExportHead& head,
                     std::span<const std::byte> file_header)
    : mac_(Derive(key, head.salt, kExportMacUse)) {
  mac_.Update(file_header);
}

void ExportMac::Add(std::uint32_t type, std::uint16_t flags,
                    std::span<const std::byte> payload) {
  ByteWriter head;
  head.Put(type);
  head.Put(flags);
  head.Put(std::uint16_t{0});
  head.Put(static_cast<std::uint64_t>(payload.size()));
  mac_.Update(head.bytes());
  mac_.Update(payload);
}

namespace {

// A record is sealed for its type and its place among the others.
std::array<std::byte, 12> AssociatedData(std::uint32_t type,
                                         std::uint64_t plain_bytes) {
  std::array<std::byte, 12> bytes{};
  std::memcpy(bytes.data(), &type, sizeof(type));
  std::memcpy(bytes.data() + sizeof(type), &plain_bytes, sizeof(plain_bytes));
  return bytes;
}

}  // namespace

std::span<const std::byte> ExportCrypt::Seal(
    std::uint32_t type, std::span<const std::byte> payload) {
  buffer_.assign(payload.begin(), payload.end());
  const auto tag = aead_.Seal(MakeNonce(0, number_++),
                              AssociatedData(type, payload.size()), buffer_);
  buffer_.insert(buffer_.end(), tag.begin(), tag.end());
  return buffer_;
}

Result<std::span<const std::byte>> ExportCrypt::Open(
    std::uint32_t type, std::span<const std::byte> payload) {
  if (payload.size() < kTagBytes) return Corrupt("a record without its tag");
  const std::size_t plain = payload.size() - kTagBytes;
  buffer_.assign(payload.begin(),
                 payload.begin() + static_cast<std::ptrdiff_t>(plain));
  const std::span<const std::byte, kTagBytes> tag(
      payload.subspan(plain).first<kTagBytes>());
  if (!aead_.Open(MakeNonce(0, number_++), AssociatedData(type, plain), buffer_,
                  tag)) {
    return Corrupt("a record was changed: its tag does not match");
  }
  return std::span<const std::byte>(buffer_);
}

}  // namespace pos::ckpt
