// Writes one session's memory as a checkpoint does, and reads it back as a
// restore does; prints one JSON object. Driven by write_bench.py.
//
//   ckpt_write_bench DIR BYTES KIND(noise|floats|text) COMPRESS DEPTH THREADS
//
// The "device" is 256 MiB of host memory that is made before the clock starts
// and copied chunk by chunk, so a run includes one memory copy per byte, as the
// simulated device does, and every chunk differs.
#include <fcntl.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ckpt/format/pack_header.h"
#include "ckpt/pack/chunk_stream.h"
#include "ckpt/pack/session_writer.h"
#include "pos/base/clock.h"
#include "pos/base/files.h"
#include "pos/base/mutex.h"

namespace pos::ckpt {
namespace {

constexpr std::uint32_t kChunk = 2u << 20;
constexpr std::size_t kDeviceBytes = 256u << 20;

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

std::vector<std::byte> Device(const std::string& kind) {
  std::vector<std::byte> device(kDeviceBytes);
  std::mt19937_64 random(1);
  if (kind == "floats") {  // as trained weights are: normal, of small variance
    std::normal_distribution<float> normal(0, 0.02f);
    std::vector<float> some(1u << 20);
    for (float& f : some) f = normal(random);
    for (std::size_t at = 0; at < kDeviceBytes; at += sizeof(float)) {
      const float f = some[(at / 4 * 7 + at / (4u << 20)) % some.size()];
      std::memcpy(device.data() + at, &f, sizeof(f));
    }
    return device;
  }
  for (std::size_t at = 0; at < kDeviceBytes; at += 8) {
    std::uint64_t word = random();
    if (kind == "text") word = (word & 0x0f0f0f0f0f0f0f0f) | 0x6060606060606060;
    std::memcpy(device.data() + at, &word, sizeof(word));
  }
  return device;
}

class Table final : public ChunkSink {
 public:
  void OnChunk(std::uint64_t cookie, const ChunkRef& ref) override {
    MutexLock lock(&mu_);
    refs_[cookie] = ref;
  }
  std::map<std::uint64_t, ChunkRef> Take() {
    MutexLock lock(&mu_);
    return std::move(refs_);
  }

 private:
  Mutex mu_;
  std::map<std::uint64_t, ChunkRef> refs_ POS_GUARDED_BY(mu_);
};

struct Setup {
  std::string dir;
  std::uint64_t bytes = 0;
  PackWriterOptions options;
};

PackTotals Write(const Setup& setup, const std::vector<std::byte>& device,
                 const PackId& pack, bool* uring, bool* direct) {
  SessionFiles files;
  files.chunk_bytes = kChunk;
  files.pack_id = pack;
  files.pack = Value(
      OpenFile(JoinPath(setup.dir, "bench.pack"), O_RDWR | O_CREAT | O_TRUNC));
  files.index = Value(
      OpenFile(JoinPath(setup.dir, "bench.idx"), O_RDWR | O_CREAT | O_TRUNC));
  PackHeader header;
  header.pack = pack;
  Check(PwriteFull(files.pack.get(), EncodePackHeader(header), 0, "pack"));
  auto session = Value(SessionWriter::Create(std::move(files), setup.options));
  *uring = session->packs().uses_uring();
  *direct = session->packs().uses_direct_io();
  const auto table = std::make_shared<Table>();
  for (std::uint64_t at = 0; at < setup.bytes; at += kChunk) {
    Buffer buffer = Value(session->packs().Acquire());
    std::memcpy(buffer.bytes().data(), device.data() + at % kDeviceBytes,
                kChunk);
    std::memcpy(buffer.bytes().data() + 128, &at, sizeof(at));
    session->packs().Submit(std::move(buffer), kChunk, table, at);
  }
  Check(session->packs().Flush());
  Region region;
  region.bytes = setup.bytes;
  Check(session->BeginRegion(region));
  for (const auto& [at, ref] : table->Take()) Check(session->AddChunk(ref));
  return Value(session->Finish());
}

void Read(const Setup& setup, const PackId& pack, std::vector<std::byte>* to) {
  PackSet packs;
  Check(packs.Add(
      pack, Value(OpenFile(JoinPath(setup.dir, "bench.pack"), O_RDONLY))));
  const UniqueFd fd =
      Value(OpenFile(JoinPath(setup.dir, "bench.idx"), O_RDONLY));
  auto source = Value(FdSource::Open(fd.get(), "index"));
  ChunkStreamOptions options;
  options.depth = setup.options.depth;
  options.threads = setup.options.threads;
  auto stream = Value(ChunkStream::Open(
      Value(IndexReader::Open(source.get(), "index")), &packs, options));
  for (;;) {
    ChunkStream::Piece piece = Value(stream->Next());
    if (piece.what == ChunkStream::Piece::What::kEnd) return;
    if (piece.what != ChunkStream::Piece::What::kData) continue;
    std::memcpy(to->data() + piece.offset % kDeviceBytes, piece.data.data(),
                piece.data.size());
  }
}

int Main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: see the head of write_bench.cc\n");
    return 2;
  }
  Setup setup;
  setup.dir = argv[1];
  setup.bytes = std::stoull(argv[2]) / kChunk * kChunk;
  const std::string compress = argv[4];
  setup.options.compress = compress == "none"   ? Compression::kNone
                           : compress == "zstd" ? Compression::kZstd
                           : compress == "lz4"  ? Compression::kLz4
                                                : Compression::kAuto;
  setup.options.depth = static_cast<unsigned>(std::stoul(argv[5]));
  setup.options.threads = static_cast<unsigned>(std::stoul(argv[6]));
  std::vector<std::byte> device = Device(argv[3]);
  const PackId pack = NewPackId();
  bool uring = false;
  bool direct = false;
  std::uint64_t start = MonotonicNs();
  const PackTotals totals = Write(setup, device, pack, &uring, &direct);
  const double write_s = static_cast<double>(MonotonicNs() - start) / 1e9;
  start = MonotonicNs();
  Read(setup, pack, &device);
  const double read_s = static_cast<double>(MonotonicNs() - start) / 1e9;
  std::printf(
      "{\"bytes\": %llu, \"stored_bytes\": %llu, \"write_s\": %.4f, "
      "\"read_s\": %.4f, \"io_uring\": %s, \"direct\": %s}\n",
      static_cast<unsigned long long>(totals.bytes),
      static_cast<unsigned long long>(totals.written_bytes), write_s, read_s,
      uring ? "true" : "false", direct ? "true" : "false");
  Check(RemoveFile(JoinPath(setup.dir, "bench.pack")));
  Check(RemoveFile(JoinPath(setup.dir, "bench.idx")));
  return 0;
}

}  // namespace
}  // namespace pos::ckpt

int main(int argc, char** argv) { return pos::ckpt::Main(argc, argv); }
