// Baseline of pipeline_bench: an empty call over gRPC on a Unix socket, server
// and client in one process.
//
// Question: how much is gained by not using an RPC library for the data path?
// Unit: microseconds per round trip.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "eval/support/report.h"
#include "pos/base/clock.h"
#include "pos/daemon/pos.grpc.pb.h"

namespace pos::eval {
namespace {

class Service : public v1::Pos::Service {
  grpc::Status Hello(grpc::ServerContext*, const v1::HelloRequest*,
                     v1::HelloReply*) override {
    return grpc::Status::OK;
  }
};

void RoundTrips(v1::Pos::Stub* stub, std::uint64_t gap_us, int rounds) {
  std::vector<double> samples;
  for (int i = 0; i < rounds; ++i) {
    if (gap_us != 0) SleepNs(gap_us * 1000);
    grpc::ClientContext context;
    v1::HelloReply reply;
    const std::uint64_t before = MonotonicNs();
    if (!stub->Hello(&context, {}, &reply).ok()) std::exit(1);
    samples.push_back(static_cast<double>(MonotonicNs() - before) / 1e3);
  }
  const std::string who = "gRPC: round trip, " +
                          (gap_us == 0 ? std::string("back to back")
                                       : std::to_string(gap_us) + " us apart");
  Row(who + ", median", Quantile(samples, 0.5), "us");
  Row(who + ", 99th", Quantile(samples, 0.99), "us");
}

}  // namespace
}  // namespace pos::eval

int main(int argc, char** argv) {
  const bool smoke = pos::eval::IsSmoke(argc, argv);
  const std::string path =
      "unix-abstract:pos-grpc-bench-" + std::to_string(::getpid());
  pos::eval::Service service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(path, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const auto stub = pos::v1::Pos::NewStub(
      grpc::CreateChannel(path, grpc::InsecureChannelCredentials()));
  pos::eval::RoundTrips(stub.get(), 0, smoke ? 20 : 20000);
  pos::eval::RoundTrips(stub.get(), 200, smoke ? 5 : 2000);
  return 0;
}
