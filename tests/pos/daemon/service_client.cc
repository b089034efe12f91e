// The other side of service_test: a client of its own process and uid.
//
//   service_client SOCKET UID signal ROUNDS   many short connections, each of
//       which claims its uid as the job's name; some end in the middle
//   service_client SOCKET UID wait            one call that does not end
//   service_client SOCKET UID offer HEX       an offer that nobody here uses;
//       says "offered" and stays until its standard input ends
//
// Exit status 0, or 1 with the reason on standard error.
#include <grp.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "pos/cli/client.h"

namespace pos {
namespace {

using cli::Cancellation;
using cli::PosClient;

Status Become(uid_t uid) {
  // Groups that tell users apart, too.
  const std::vector<gid_t> groups = {uid + 1, uid + 2};
  if (::setgroups(groups.size(), groups.data()) != 0 ||
      ::setresgid(uid, uid, uid) != 0 || ::setresuid(uid, uid, uid) != 0) {
    return ErrnoStatus(errno, "change the user");
  }
  return {};
}

// A call whose connection goes away under it.
Status Abandon(const std::string& socket, const std::string& claim) {
  POS_ASSIGN_OR_RETURN(std::unique_ptr<PosClient> client,
                       PosClient::Connect(socket));
  Cancellation cancel;
  v1::WaitRequest request;
  request.set_job(claim);
  std::thread caller(
      [&] { client->Wait(request, &cancel).status().IgnoreError(); });
  cancel.Cancel();
  caller.join();
  return {};
}

Status SignalRounds(const std::string& socket, uid_t uid, int rounds) {
  const std::string claim = std::to_string(uid);
  for (int i = 0; i < rounds; ++i) {
    if (i % 3 == 1) POS_RETURN_IF_ERROR(Abandon(socket, claim));
    if (i % 3 == 2) {
      POS_RETURN_IF_ERROR(ConnectToPosd(socket, 5000).status());
    }
    POS_ASSIGN_OR_RETURN(const std::unique_ptr<PosClient> client,
                         PosClient::Connect(socket));
    v1::SignalRequest request;
    request.set_job(claim);
    POS_RETURN_IF_ERROR(client->Signal(request));
  }
  return {};
}

Status WaitForEver(const std::string& socket) {
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<PosClient> client,
                       PosClient::Connect(socket));
  return client->Wait({}, nullptr).status();
}

Status KeepOffer(const std::string& socket, const std::string& hex) {
  Ticket ticket{};
  for (std::size_t i = 0; i < ticket.size(); ++i) {
    ticket[i] = static_cast<std::byte>(
        std::strtoul(hex.substr(2 * i, 2).c_str(), nullptr, 16));
  }
  POS_ASSIGN_OR_RETURN(const UniqueFd offer,
                       OfferStdio(socket, ticket, {0, 1, 2}, 5000));
  std::puts("offered");
  std::fflush(stdout);
  std::getchar();
  return {};
}

Status Main(const std::vector<std::string>& arguments) {
  if (arguments.size() < 3) return Invalid("too few arguments");
  const std::string& socket = arguments[0];
  const auto uid = static_cast<uid_t>(std::stoul(arguments[1]));
  if (uid != ::geteuid()) POS_RETURN_IF_ERROR(Become(uid));
  if (arguments[2] == "signal") {
    return SignalRounds(socket, uid, std::stoi(arguments[3]));
  }
  if (arguments[2] == "wait") return WaitForEver(socket);
  if (arguments[2] == "offer") return KeepOffer(socket, arguments[3]);
  return Invalid("what is " + arguments[2] + "?");
}

}  // namespace
}  // namespace pos

int main(int argc, char** argv) {
  const pos::Status status = pos::Main({argv + 1, argv + argc});
  if (status.ok()) return 0;
  std::fprintf(stderr, "service_client: %s\n", status.ToString().c_str());
  return 1;
}
