// Question   What does a second checkpoint cost when 1 % of the chunks changed?
// Unit       seconds from BeginImage to the sealed image; bytes stored.
// Baseline   the first checkpoint of the same memory, in the same run.
// Method     --runs rounds (default 5), each in a store of its own: write an
//            image, change every hundredth chunk, write another. Medians.
// Target     <= 10 % of the first one's bytes, <= 25 % of its time.
//
// Shown apart: how long the table of known chunks and the seal take, which
// grow with the number of chunks (--chunk-kib 64 makes many of them).
//
//   ckpt_incremental_bench DIR [--mib N] [--chunk-kib N] [--runs N]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ckpt/pack/session_writer.h"
#include "ckpt/store/draft.h"
#include "ckpt/store/store.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/mutex.h"

namespace pos::ckpt {
namespace {

[[noreturn]] void Die(const Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}
void Check(const Status& status) {
  if (!status.ok()) Die(status);
}
template <typename T>
T Value(Result<T> result) {
  if (!result.ok()) Die(result.status());
  return std::move(result).value();
}

class Table final : public ChunkSink {
 public:
  explicit Table(std::size_t chunks) : refs_(chunks) {}
  void OnChunk(std::uint64_t cookie, const ChunkRef& ref) override {
    MutexLock lock(&mu_);
    refs_[cookie] = ref;
  }
  std::vector<ChunkRef> Take() {
    MutexLock lock(&mu_);
    return std::move(refs_);
  }

 private:
  Mutex mu_;
  std::vector<ChunkRef> refs_ POS_GUARDED_BY(mu_);
};

struct Times {
  double total_s = 0;
  double offer_s = 0;
  double seal_s = 0;
  double stored_bytes = 0;
};

double Since(std::uint64_t start_ns) {
  return static_cast<double>(MonotonicNs() - start_ns) / 1e9;
}

Times OneCheckpoint(Store* store, const std::vector<std::byte>& memory) {
  Times times;
  const std::uint64_t start = MonotonicNs();
  auto draft = Value(store->BeginImage({0, 0, "bench", true}));
  SessionFiles files = Value(draft->AddSession(0));
  times.offer_s = Since(start);
  const std::size_t chunk = files.chunk_bytes;
  auto session =
      Value(SessionWriter::Create(std::move(files), PackWriterOptions()));
  const auto table = std::make_shared<Table>(memory.size() / chunk);
  for (std::size_t at = 0; at < memory.size(); at += chunk) {
    // Digest first, as an engine does: known chunks are not even copied.
    const auto bytes = std::span(memory).subspan(at, chunk);
    const auto known =
        session->packs().Find(DigestOf(session->packs().digest_key(), bytes));
    if (known.has_value()) {
      table->OnChunk(at / chunk, *known);
      continue;
    }
    Buffer buffer = Value(session->packs().Acquire());
    std::memcpy(buffer.bytes().data(), bytes.data(), chunk);
    session->packs().Submit(std::move(buffer), chunk, table, at / chunk);
  }
  Check(session->packs().Flush());
  Region region;
  region.bytes = memory.size();
  Check(session->BeginRegion(region));
  for (const ChunkRef& ref : table->Take()) Check(session->AddChunk(ref));
  Check(session->Finish().status());
  const std::uint64_t sealing = MonotonicNs();
  Manifest manifest;
  manifest.sessions.resize(1);
  const Manifest sealed = Value(draft->Seal(manifest));
  times.seal_s = Since(sealing);
  times.total_s = Since(start);
  times.stored_bytes = static_cast<double>(sealed.totals.written_bytes);
  return times;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int Main(int argc, char** argv) {
  if (argc < 2 || argc % 2 != 0) {
    std::fprintf(stderr, "usage: see the head of incremental_bench.cc\n");
    return 2;
  }
  std::size_t mib = 1024;
  std::size_t chunk_kib = 2048;
  std::size_t runs = 5;
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    std::size_t* const value = option == "--mib"         ? &mib
                               : option == "--chunk-kib" ? &chunk_kib
                                                         : &runs;
    *value = std::stoul(argv[i + 1]);
  }
  const std::size_t chunk = chunk_kib << 10;
  std::vector<std::byte> memory((mib << 20) / chunk * chunk);
  std::mt19937_64 random(1);
  for (std::size_t at = 0; at < memory.size(); at += 8) {
    const std::uint64_t word = random();
    std::memcpy(memory.data() + at, &word, sizeof(word));
  }
  std::vector<double> time_ratio;
  std::vector<double> byte_ratio;
  std::vector<double> first_s;
  std::vector<double> second_s;
  std::vector<double> offer_ms;
  std::vector<double> seal_ms;
  for (std::size_t run = 0; run < runs; ++run) {
    const std::string path = JoinPath(argv[1], "incremental-bench");
    StoreOptions options;
    options.chunk_bytes = static_cast<std::uint32_t>(chunk);
    {
      auto store = Value(Store::Open(path, options));
      const Times first = OneCheckpoint(store.get(), memory);
      for (std::size_t at = 0; at < memory.size(); at += 100 * chunk) {
        memory[at] ^= std::byte{0xff};
      }
      const Times second = OneCheckpoint(store.get(), memory);
      first_s.push_back(first.total_s);
      second_s.push_back(second.total_s);
      time_ratio.push_back(second.total_s / first.total_s);
      byte_ratio.push_back(second.stored_bytes / first.stored_bytes);
      offer_ms.push_back(second.offer_s * 1000);
      seal_ms.push_back(second.seal_s * 1000);
    }
    Check(RemoveTree(path));
  }
  std::printf(
      "{\"memory_bytes\": %zu, \"chunk_bytes\": %zu, \"runs\": %zu, "
      "\"first_s\": %.3f, \"second_s\": %.3f, \"time_ratio\": %.3f, "
      "\"byte_ratio\": %.4f, \"offer_ms\": %.1f, \"seal_ms\": %.1f}\n",
      memory.size(), chunk, runs, Median(first_s), Median(second_s),
      Median(time_ratio), Median(byte_ratio), Median(offer_ms),
      Median(seal_ms));
  return 0;
}

}  // namespace
}  // namespace pos::ckpt

int main(int argc, char** argv) { return pos::ckpt::Main(argc, argv); }
