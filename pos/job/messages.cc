#include "pos/job/messages.h"

namespace pos::job {

StatusMessage ToMessage(const Status& status) {
  StatusMessage message;
  message.set_code(std::string(CodeName(status.code())));
  // A message goes through a packet of bounded size.
  message.set_message(status.message().substr(0, 16384));
  message.set_hint(status.hint().substr(0, 4096));
  return message;
}

Status FromMessage(const StatusMessage& message) {
  if (message.code().empty()) return {};
  return {CodeFromName(message.code()), message.message(), message.hint()};
}

Status SendMessage(ControlChannel* channel,
                   const google::protobuf::MessageLite& message,
                   std::span<const int> fds) {
  return channel->Send(message.SerializeAsString(), fds);
}

}  // namespace pos::job
