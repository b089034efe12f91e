// The inner half of a nested device, as a process of its own: one session on a
// simulated device for the first client that comes to the socket argv[1]. Ends
// with that client.
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <utility>

#include "pos/runner/client_link.h"
#include "tests/conformance/device/nested_layout.h"
#include "tests/support/sim_session.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  // Not longer than the test that started it.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const std::string path = argv[1];
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const pos::UniqueFd listener(
      ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (::bind(listener.get(), reinterpret_cast<sockaddr*>(&address),
             sizeof(address)) != 0 ||
      ::listen(listener.get(), 1) != 0) {
    std::perror("nested_runner");
    return 1;
  }
  std::puts("ready");
  std::fflush(stdout);
  pos::UniqueFd socket(
      ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  pos::wire::AttachRequest request;
  if (!socket.valid() ||
      ::recv(socket.get(), &request, sizeof(request), 0) != sizeof(request)) {
    return 1;
  }
  pos::SimSession session(pos::conformance::NestedOptions(),
                          pos::conformance::kNestedMemoryBytes,
                          pos::conformance::kNestedMemoryBytes);
  pos::ClientLink link;
  link.SetFileSink([&session](std::uint64_t n, pos::UniqueFd file) {
    return session.session().window().AddFile(n, std::move(file));
  });
  const pos::Status accepted = link.Accept(std::move(socket), *session.ring(),
                                           session.session().host_fd(),
                                           session.session().layout(), 1, 1);
  if (!accepted.ok()) {
    std::fprintf(stderr, "nested_runner: %s\n", accepted.ToString().c_str());
    return 1;
  }
  while (link.connected()) {
    pollfd p{link.fd(), POLLIN, 0};
    if (::poll(&p, 1, 1000) > 0 &&
        link.Read() == pos::ClientLink::Event::kMalformed) {
      return 1;
    }
  }
  return 0;
}
