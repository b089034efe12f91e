// ClientPort over a session's shared memory.
#ifndef REMOTING_FRONTEND_SHM_PORT_H_
#define REMOTING_FRONTEND_SHM_PORT_H_

#include "pos/call/client_port.h"
#include "remoting/transport/shm/ring_server.h"

namespace pos {

class ShmPort : public ClientPort {
 public:
  explicit ShmPort(RingServer* ring) : ring_(ring) {}
  void Reply(ApiContext* context) override;
  std::span<const std::byte> BulkIn(const ApiContext& context) override;
  std::span<std::byte> BulkOut(const ApiContext& context) override;
  void ReleaseBulkIn(ApiContext* context) override;
  void SetSticky(std::int32_t error) override;
  void SetOutput(bool waiting) override;

 private:
  RingServer* const ring_;
};

}  // namespace pos

#endif  // REMOTING_FRONTEND_SHM_PORT_H_
