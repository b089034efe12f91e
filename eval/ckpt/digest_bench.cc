// How fast a device digests its memory, against how fast that memory is read
// and copied in the same run: what the proof of a concurrent checkpoint costs,
// against what a checkpoint that stops the job would copy.
//
//   ckpt_digest_bench [--smoke] [--device sim|cuda] [--mib N] [--driver LIB]
//
// --driver: of the cuda device; default: libcuda.so.1 as the loader finds it.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "eval/support/report.h"
#include "pos/base/clock.h"
#include "pos/cuda_impl/device_cuda/cuda_device.h"
#include "pos/cuda_impl/device_sim/sim_device.h"
#include "pos/device/device.h"
#include "pos/device/host_digest.h"
#include "pos/runner/tmpfs_window.h"

namespace pos {
namespace {

constexpr std::uint64_t kChunk = 2u << 20;

void Check(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

struct Arguments {
  bool smoke = false;
  std::string device = "sim";
  std::string driver;
  std::uint64_t bytes = 2ull << 30;
};

Arguments Parse(int argc, char** argv) {
  Arguments arguments;
  arguments.smoke = eval::IsSmoke(argc, argv);
  if (arguments.smoke) arguments.bytes = 32 << 20;
  for (int i = 1; i + 1 < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--device") arguments.device = argv[i + 1];
    if (name == "--driver") arguments.driver = argv[i + 1];
    if (name == "--mib") {
      arguments.bytes = std::strtoull(argv[i + 1], nullptr, 10) << 20;
    }
  }
  return arguments;
}

// The best of some runs, in GB/s.
template <typename Work>
double Best(const Arguments& arguments, std::uint64_t bytes, const Work& work) {
  double best = 0;
  for (int i = 0; i < (arguments.smoke ? 1 : 5); ++i) {
    const std::uint64_t before = MonotonicNs();
    work();
    const std::uint64_t ns = MonotonicNs() - before;
    best = std::max(best, static_cast<double>(bytes) / static_cast<double>(ns));
  }
  return best;
}

std::atomic<std::uint64_t> sink{0};

// Reads all of it on `threads` threads; the sum keeps it from being left out.
void ReadAll(const std::uint64_t* words, std::uint64_t count, int threads) {
  std::vector<std::thread> all;
  const std::uint64_t share = count / static_cast<std::uint64_t>(threads);
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([=] {
      const std::uint64_t* at = words + share * static_cast<std::uint64_t>(t);
      std::uint64_t sums[4] = {};
      for (std::uint64_t i = 0; i + 4 <= share; i += 4) {
        for (std::uint64_t k = 0; k < 4; ++k) sums[k] += at[i + k];
      }
      sink.fetch_add(sums[0] + sums[1] + sums[2] + sums[3]);
    });
  }
  for (std::thread& thread : all) thread.join();
}

void FillMemory(Device* device, DeviceAddress base, std::uint64_t bytes) {
  std::mt19937_64 random(1);
  std::vector<std::byte> some(kChunk);
  for (std::size_t i = 0; i < kChunk; i += 8) {
    const std::uint64_t word = random();
    std::memcpy(some.data() + i, &word, 8);
  }
  for (std::uint64_t at = 0; at < bytes; at += kChunk) {
    std::memcpy(some.data(), &at, sizeof(at));
    Check(device->Write(base + at, some));
  }
}

void Measure(const Arguments& arguments, Device* device, DeviceAddress base) {
  const std::uint64_t bytes = arguments.bytes;
  Check(device->Map(base, bytes));
  FillMemory(device, base, bytes);
  std::printf("%s: %llu MiB in chunks of 2 MiB, %u processors\n",
              device->info().name.c_str(),
              static_cast<unsigned long long>(bytes >> 20),
              std::thread::hardware_concurrency());
  if (device->info().kind == "sim") {
    const auto* words = reinterpret_cast<const std::uint64_t*>(base);
    for (const int threads : {1, 2, 4, 8}) {
      if (threads > static_cast<int>(std::thread::hardware_concurrency())) {
        break;
      }
      const double speed =
          Best(arguments, bytes, [&] { ReadAll(words, bytes / 8, threads); });
      eval::Row("read, threads: " + std::to_string(threads), speed, "GB/s");
    }
  }
  std::vector<std::byte> buffer(kChunk);
  const double copied = Best(arguments, bytes, [&] {
    for (std::uint64_t at = 0; at < bytes; at += kChunk) {
      Check(device->Read(base + at, buffer));
    }
  });
  eval::Row("copied to the host, chunk by chunk", copied, "GB/s");

  std::vector<MemoryRange> ranges;
  for (std::uint64_t at = 0; at < bytes; at += kChunk) {
    ranges.push_back({base + at, kChunk});
  }
  std::vector<ckpt::Digest> digests(ranges.size());
  const std::uint64_t before = MonotonicNs();
  Check(device->Digest({}, 7, {}));
  eval::Row("made ready", static_cast<double>(MonotonicNs() - before) / 1e6,
            "ms");
  if (device->info().kind == "sim") {
    const double one =
        Best(arguments, bytes, [&] { DigestHost(ranges, 7, digests, 1); });
    eval::Row("digested by one thread", one, "GB/s");
  }
  const double speed = Best(arguments, bytes,
                            [&] { Check(device->Digest(ranges, 7, digests)); });
  eval::Row("digested by the device", speed, "GB/s");
  // Ranges with tails, at addresses that are multiples of 512 only.
  for (MemoryRange& range : ranges) {
    range.address += 512;
    range.bytes -= 1000;
  }
  const double tails = Best(arguments, bytes,
                            [&] { Check(device->Digest(ranges, 7, digests)); });
  eval::Row("digested, chunks with tails", tails, "GB/s");
  std::vector<MemoryRange> small;
  for (std::uint64_t at = 0;
       at + 4096 <= std::min(bytes, std::uint64_t{256} << 20); at += 4096) {
    small.push_back({base + at, 3000});
  }
  digests.resize(small.size());
  const double many = Best(arguments, small.size(),
                           [&] { Check(device->Digest(small, 7, digests)); });
  eval::Row("digested, 3000 bytes each", many * 1e3, "million/s");
  Check(device->Unmap(base, bytes));
}

int Main(int argc, char** argv) {
  const Arguments arguments = Parse(argc, argv);
  if (arguments.device == "cuda") {
    cuda_device::CudaOptions options;
    options.driver_library = arguments.driver;
    auto device = cuda_device::NewCudaDevice(options);
    Check(device.status());
    Measure(arguments, device->get(), options.arena_base);
    return 0;
  }
  sim::SimOptions options;
  options.memory_bytes = arguments.bytes;
  options.arena_base = 0x7e8000000000;
  options.arena_bytes = 64ull << 30;
  auto range = ReservedRange::At(options.arena_base, options.arena_bytes);
  Check(range.status());
  auto device = sim::NewSimDevice(options);
  Check(device.status());
  Measure(arguments, device->get(), options.arena_base);
  return 0;
}

}  // namespace
}  // namespace pos

int main(int argc, char** argv) { return pos::Main(argc, argv); }
