// Small helpers around the messages of job.proto and init.proto.
#ifndef POS_JOB_MESSAGES_H_
#define POS_JOB_MESSAGES_H_

#include <span>
#include <string>
#include <string_view>

#include "pos/base/status.h"
#include "pos/job/init.pb.h"
#include "pos/job/job.pb.h"
#include "remoting/control/channel.h"

namespace pos::job {

inline constexpr std::uint32_t kProtocolVersion = 1;

[[nodiscard]] StatusMessage ToMessage(const Status& status);
// The message of a status that is OK does not exist; an empty code is kOk.
[[nodiscard]] Status FromMessage(const StatusMessage& message);

// Serializes and sends. Errors are the channel's.
Status SendMessage(ControlChannel* channel,
                   const google::protobuf::MessageLite& message,
                   std::span<const int> fds = {});

// kProto when the bytes are not a T.
template <typename T>
Result<T> ParseMessage(std::string_view bytes) {
  T message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Proto("malformed message of " + std::to_string(bytes.size()) +
                 " bytes");
  }
  return message;
}

}  // namespace pos::job

#endif  // POS_JOB_MESSAGES_H_
