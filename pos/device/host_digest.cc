#include "pos/device/host_digest.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <map>
#include <thread>
#include <vector>

namespace pos {
namespace {

constexpr int kMostThreads = 8;
// A thread costs some tens of microseconds; that much is digested meanwhile.
constexpr std::uint64_t kBytesPerThread = 2 << 20;

int ChooseThreads(int wanted, std::uint64_t bytes, std::size_t ranges) {
  const int processors =
      static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const int most = wanted > 0 ? wanted : std::min(processors, kMostThreads);
  const std::uint64_t worth =
      std::min<std::uint64_t>(bytes / kBytesPerThread, ranges);
  return static_cast<int>(
      std::clamp<std::uint64_t>(worth, 1, static_cast<std::uint64_t>(most)));
}

}  // namespace

void DigestHost(std::span<const MemoryRange> ranges, std::uint64_t seed,
                std::span<ckpt::Digest> digests, int threads) {
  const ckpt::DigestKey key(seed);
  std::uint64_t bytes = 0;
  for (const MemoryRange& range : ranges) bytes += range.bytes;
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (;;) {
      const std::size_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= ranges.size()) return;
      digests[i] = ckpt::DigestOf(
          key, {reinterpret_cast<const std::byte*>(ranges[i].address),
                ranges[i].bytes});
    }
  };
  std::vector<std::thread> helpers;
  const int count = ChooseThreads(threads, bytes, ranges.size());
  for (int i = 1; i < count; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
}

void DigestZeros(std::span<const MemoryRange> ranges, std::uint64_t seed,
                 std::span<ckpt::Digest> digests) {
  static constexpr std::array<std::byte, 64 << 10> kZeros{};
  const ckpt::DigestKey key(seed);
  // There are few sizes: most are whole chunks.
  std::map<std::uint64_t, ckpt::Digest> known;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const auto [it, fresh] = known.try_emplace(ranges[i].bytes);
    if (fresh) {
      ckpt::DigestStream stream(key);
      for (std::uint64_t left = ranges[i].bytes; left != 0;) {
        const std::uint64_t take = std::min<std::uint64_t>(left, kZeros.size());
        stream.Update(std::span(kZeros).first(take));
        left -= take;
      }
      it->second = stream.Finish();
    }
    digests[i] = it->second;
  }
}

}  // namespace pos
