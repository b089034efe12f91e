// A stand-in for pos-runner that does what the first word of the file
// $POS_FAKE_RUNNER says: "sound", "hangs" (while it opens its first device, and
// whatever happens to posd), "names N" (device N as the one that fails), "dies"
// (when it is configured).
#include <unistd.h>

#include <cstdlib>
#include <sstream>
#include <string>

#include "pos/base/files.h"
#include "pos/runner/runner.pb.h"
#include "remoting/control/channel.h"

int main() {
  const char* const path = std::getenv("POS_FAKE_RUNNER");
  const pos::Result<std::string> text = pos::ReadWholeFile(path);
  std::istringstream mode(text.ok() ? *text : "dies");
  std::string word;
  int device = 0;
  mode >> word >> device;
  pos::ControlChannel channel{pos::UniqueFd(3)};
  for (;;) {
    const auto message = channel.Receive(-1);
    pos::runner::ToRunner request;
    if (!message.ok() || !request.ParseFromString(message->bytes)) return 0;
    if (request.has_end() || word == "dies") return 0;
    pos::runner::FromRunner reply;
    if (request.has_configure() && word == "hangs") {
      reply.mutable_opening()->set_ordinal(
          request.configure().devices(0).ordinal());
      channel.Send(reply.SerializeAsString()).IgnoreError();
      for (;;) ::pause();
    }
    reply.set_id(request.id());
    if (request.has_configure() && word == "names") {
      reply.set_error_code("DEVICE_GONE");
      reply.set_error_message("it does not work");
      reply.add_failed_devices(device);
    }
    channel.Send(reply.SerializeAsString()).IgnoreError();
    if (request.has_configure() && word == "sound") {
      pos::ReplaceFile(std::string(path) + ".warm", "").IgnoreError();
    }
  }
}
