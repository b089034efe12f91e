// Both ends of a session's shared memory in one process.
#ifndef POS_TESTS_SUPPORT_RING_PAIR_H_
#define POS_TESTS_SUPPORT_RING_PAIR_H_

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "remoting/transport/shm/ring_client.h"
#include "remoting/transport/shm/ring_server.h"

namespace pos {

inline RingGeometry SmallGeometry() {
  RingGeometry geometry;
  geometry.ring_bytes = 256 << 10;
  geometry.slot_count = 16;
  geometry.staging_bytes = 1 << 20;  // 16 lease units
  return geometry;
}

class RingPair {
 public:
  explicit RingPair(const RingGeometry& geometry = SmallGeometry()) {
    Result<std::unique_ptr<RingServer>> made = RingServer::Create(geometry);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    server_ = std::move(*made);
    client_.Adopt(server_->ring_memory(), server_->staging_memory());
  }

  RingServer& server() { return *server_; }
  RingClient& client() { return client_; }

  // Another client end, with mappings of its own.
  Status MapClient(RingClient* client) {
    return client->Map(server_->ring_fd(), server_->ring_map_bytes(),
                       server_->staging_fd(),
                       server_->geometry().staging_bytes);
  }

  // Sends a frame whose payload is `payload`; false when the ring is closed.
  bool Send(std::uint16_t op, std::span<const std::byte> payload,
            std::uint32_t slot = wire::kNoSlot) {
    wire::FrameHeader* const frame =
        client_.Begin(op, 0, static_cast<std::uint32_t>(payload.size()));
    if (frame == nullptr) return false;
    if (!payload.empty()) {
      std::memcpy(RingClient::Args(frame), payload.data(), payload.size());
    }
    frame->slot = slot;
    client_.Commit(frame);
    return true;
  }

  // Takes the next frame; empty when there is none.
  std::vector<std::byte> Take() {
    std::uint32_t bytes = 0;
    if (server_->PeekSize(&bytes) != RingServer::NextResult::kFrame) return {};
    std::vector<std::byte> frame(bytes);
    server_->Take(frame);
    return frame;
  }

  // Whether the client's bell rang since the last call.
  bool BellRang() {
    pollfd p{server_->bell_fd(), POLLIN, 0};
    if (::poll(&p, 1, 0) <= 0) return false;
    std::uint64_t count = 0;
    return ::read(server_->bell_fd(), &count, sizeof(count)) == sizeof(count);
  }

 private:
  std::unique_ptr<RingServer> server_;
  RingClient client_;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_RING_PAIR_H_
