// The player: streams, events, code, pinned memory, the end.
#include <cuda.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/ckpt/engine/call_script.h"
#include "tests/ckpt/engine/script_bytes.h"

namespace pos {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kVariableWords = 64;

constexpr std::string_view kCode = R"(
.version 8.0
.target sm_90
.address_size 64
.visible .global .align 4 .b8 total[256];
.visible .entry mix(.param .u64 p0, .param .u32 p1, .param .u32 p2)
{
  .reg .pred %p<4>;
  .reg .b32 %r<16>;
  .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [p0];
  ld.param.u32 %r1, [p1];
  ld.param.u32 %r2, [p2];
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %tid.x;
  mad.lo.s32 %r6, %r3, %r4, %r5;
  setp.ge.u32 %p1, %r6, %r1;
  @%p1 bra DONE;
  mul.wide.u32 %rd2, %r6, 4;
  add.s64 %rd3, %rd1, %rd2;
  ld.global.u32 %r7, [%rd3];
  mul.lo.s32 %r8, %r7, 1664525;
  add.s32 %r9, %r8, %r2;
  add.s32 %r10, %r9, %r6;
  st.global.u32 [%rd3], %r10;
  setp.ge.u32 %p2, %r6, 64;
  @%p2 bra DONE;
  mov.u64 %rd4, total;
  add.s64 %rd5, %rd4, %rd2;
  ld.global.u32 %r11, [%rd5];
  mul.lo.s32 %r12, %r11, 69069;
  add.s32 %r13, %r12, %r10;
  st.global.u32 [%rd5], %r13;
DONE:
  ret;
}
.visible .entry slow(.param .u64 p0, .param .u32 p1, .param .u32 p2)
{
  .reg .pred %p<4>;
  .reg .b32 %r<16>;
  .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [p0];
  ld.param.u32 %r1, [p1];
  ld.param.u32 %r2, [p2];
  mov.u32 %r5, %tid.x;
  mul.wide.u32 %rd2, %r5, 4;
  add.s64 %rd3, %rd1, %rd2;
  ld.global.u32 %r7, [%rd3];
  mov.u32 %r6, 0;
AGAIN:
  mul.lo.s32 %r8, %r7, 1664525;
  add.s32 %r7, %r8, %r2;
  add.s32 %r6, %r6, 1;
  setp.lt.u32 %p1, %r6, %r1;
  @%p1 bra AGAIN;
  st.global.u32 [%rd3], %r7;
  ret;
}
)";

}  // namespace

void ScriptPlayer::PlayStreams(const Step& step) {
  const std::size_t place = step.a % streams_.size();
  const std::uint64_t stream = streams_[place];
  switch (step.kind) {
    case Step::kStreamCreate:
      if (streams_.size() < 5) {
        streams_.push_back(client_.MakeStream(context_, step.seed % 2));
      }
      return;
    case Step::kStreamDestroy:
      if (place == 0) return;  // the default one
      Log("sync", client_.Sync(stream));
      for (auto* list : {&buffers_, &hosts_}) {
        for (Memory& memory : *list) {
          if (memory.owner == stream) memory.owner = kNobody;
        }
      }
      for (Module& module : modules_) {
        if (module.variable.owner == stream) module.variable.owner = kNobody;
      }
      Log("destroy", client_.Call(cuda::StreamDestroyArgs{.stream = stream}));
      streams_.erase(streams_.begin() + static_cast<std::ptrdiff_t>(place));
      return;
    case Step::kStreamSync:
      Log("sync", client_.Sync(stream));
      return;
    default: {
      const std::int32_t state =
          client_.Call(cuda::StreamQueryArgs{.stream = stream});
      Log("query", state == CUDA_ERROR_NOT_READY ? 0 : state);
      return;
    }
  }
}

void ScriptPlayer::PlayEvents(const Step& step) {
  if (step.kind == Step::kEventCreate) {
    if (events_.size() < 5) events_.push_back({client_.MakeEvent(context_)});
    return;
  }
  if (events_.empty()) return;
  const std::size_t place = step.a % events_.size();
  Event& event = events_[place];
  const std::uint64_t stream = StreamOf(step.b);
  switch (step.kind) {
    case Step::kEventDestroy:
      Log("event destroy",
          client_.Call(cuda::EventDestroyArgs{.event = event.id}));
      events_.erase(events_.begin() + static_cast<std::ptrdiff_t>(place));
      return;
    case Step::kEventRecord:
      client_.Post(cuda::EventRecordArgs{.event = event.id, .stream = stream});
      event.recorded = true;
      return;
    case Step::kEventWait:
      client_.Post(
          cuda::StreamWaitEventArgs{.stream = stream, .event = event.id});
      return;
    case Step::kEventSync:
      Log("event sync",
          client_.Call(cuda::EventSynchronizeArgs{.event = event.id}));
      Log("event query", client_.Call(cuda::EventQueryArgs{.event = event.id}));
      return;
    case Step::kEventQuery: {
      const std::int32_t state =
          client_.Call(cuda::EventQueryArgs{.event = event.id});
      Log("event query", state == CUDA_ERROR_NOT_READY ? 0 : state);
      return;
    }
    default: {
      const Event& other = events_[step.b % events_.size()];
      for (const Event& e : {event, other}) {
        Log("event sync",
            client_.Call(cuda::EventSynchronizeArgs{.event = e.id}));
      }
      const std::int32_t result = client_.Call(
          cuda::EventElapsedArgs{.start = event.id, .end = other.id});
      Log("elapsed", result);
      const bool both = event.recorded && other.recorded;
      EXPECT_EQ(result, both ? 0 : CUDA_ERROR_INVALID_HANDLE);
      return;
    }
  }
}

void ScriptPlayer::LoadModule(const Step& step) {
  if (modules_.size() >= 2) return;
  // A copy of its own now and then: the code differs, the kernels do not.
  const std::string code =
      std::string(kCode) + "// " + std::to_string(step.seed % 3) + "\n";
  Log("blob", client_.Call(cuda::BlobCreateArgs{.bytes = code.size() + 1}));
  const auto blob = client_.Result<cuda::BlobCreateOut>().blob;
  Log("blob put",
      client_.Call(
          cuda::BlobPutArgs{.blob = blob, .offset = 0, .bytes = code.size()},
          {.inline_data = std::as_bytes(std::span(code))}));
  Module module;
  const std::int32_t loaded =
      client_.Call(cuda::ModuleLoadArgs{.context = context_.id, .blob = blob});
  Log("load", loaded);
  if (loaded != 0) return;
  module.id = client_.Result<cuda::ModuleLoadOut>().module;
  Log("blob destroy", client_.Call(cuda::BlobDestroyArgs{.blob = blob}));
  for (auto [name, id] :
       {std::pair<std::string_view, std::uint64_t*>("mix", &module.mix),
        {"slow", &module.slow}}) {
    const std::uint32_t lease = client_.AwaitLease(4096);
    Log("function", client_.Call(cuda::ModuleFunctionArgs{.module = module.id},
                                 {.inline_data = std::as_bytes(std::span(name)),
                                  .lease = lease,
                                  .bulk_bytes = 4096,
                                  .flags = wire::kFrameBulkOut}));
    *id = client_.Result<cuda::ModuleFunctionOut>().function;
    client_.leases().Release(&client_.ring(), lease);
  }
  constexpr std::string_view kVariable = "total";
  Log("variable",
      client_.Call(cuda::ModuleGlobalArgs{.module = module.id},
                   {.inline_data = std::as_bytes(std::span(kVariable))}));
  const auto variable = client_.Result<cuda::ModuleGlobalOut>();
  EXPECT_EQ(variable.bytes, 4 * kVariableWords);
  module.variable = {variable.address, variable.bytes, kNobody, 0};
  modules_.push_back(module);
}

void ScriptPlayer::Launch(const Step& step) {
  struct Params {
    std::uint64_t address;
    std::uint32_t n;
    std::uint32_t seed;
  };
  Memory* const memory = BufferOf(step.a);
  if (memory == nullptr || modules_.empty()) return;
  Module& module = modules_[step.seed % modules_.size()];
  const std::uint64_t stream = StreamOf(step.b);
  Use(memory, stream, step.seed % 5 == 0);
  const bool slow = step.kind == Step::kLaunchSlow;
  const auto words = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(memory->bytes, 2000) / 4);
  const Params params{memory->address, slow ? 20 + step.seed % 2000 : words,
                      step.seed};
  if (!slow) Use(&module.variable, stream, false);
  client_.Post(cuda::LaunchArgs{.stream = stream,
                                .function = slow ? module.slow : module.mix,
                                .grid_x = slow ? 1 : (words + 63) / 64,
                                .grid_y = 1,
                                .grid_z = 1,
                                .block_x = slow ? 32u : 64u,
                                .block_y = 1,
                                .block_z = 1,
                                .shared_bytes = 0,
                                .cooperative = 0},
               {.inline_data = std::as_bytes(std::span(&params, 1))});
}

void ScriptPlayer::PlayCode(const Step& step) {
  if (step.kind == Step::kModuleLoad) {
    LoadModule(step);
    return;
  }
  if (step.kind == Step::kLaunch || step.kind == Step::kLaunchSlow) {
    Launch(step);
    return;
  }
  if (modules_.empty()) return;
  const std::size_t place = step.a % modules_.size();
  Module& module = modules_[place];
  if (step.kind == Step::kVariable) {
    Use(&module.variable, StreamOf(step.b), false);
    Fetch(AskFor(module.variable.owner, module.variable.address,
                 module.variable.bytes - 30));
    return;
  }
  Log("unload", client_.Call(cuda::ModuleUnloadArgs{.module = module.id}));
  modules_.erase(modules_.begin() + static_cast<std::ptrdiff_t>(place));
}

void ScriptPlayer::PlayHost(const Step& step) {
  if (step.kind == Step::kHostAlloc) {
    if (hosts_.size() >= 2) return;
    const std::uint64_t bytes = 4096 + step.seed % 100000;
    const std::int32_t result = client_.Call(
        cuda::HostAllocArgs{.context = context_.id, .bytes = bytes});
    Log("host", result);
    if (result != 0) return;
    hosts_.push_back(
        {client_.Result<cuda::HostAllocOut>().address, bytes, kNobody, 0});
    return;
  }
  if (hosts_.empty()) return;
  const std::size_t place = step.b % hosts_.size();
  Memory& host = hosts_[place];
  if (step.kind == Step::kHostFree) {
    Log("host free", client_.Call(cuda::HostFreeArgs{.address = host.address}));
    hosts_.erase(hosts_.begin() + static_cast<std::ptrdiff_t>(place));
    return;
  }
  Memory* const memory = BufferOf(step.a);
  if (memory == nullptr) return;
  const std::uint64_t stream = StreamOf(step.seed);
  const std::uint64_t bytes =
      1 + step.seed / 7 % std::min(host.bytes, memory->bytes);
  const bool in = step.kind == Step::kHostIn;
  if (in) {
    Settle(&host);
    const std::vector<std::byte> pattern = Pattern(bytes, step.seed);
    std::memcpy(reinterpret_cast<void*>(host.address), pattern.data(), bytes);
  }
  Use(&host, stream, false);
  Use(memory, stream, false);
  client_.Post(cuda::CopyArgs{.stream = stream,
                              .dst = in ? memory->address : host.address,
                              .src = in ? host.address : memory->address,
                              .bytes = bytes});
}

void ScriptPlayer::PlayWrong(const Step& step) {
  switch (step.kind) {
    case Step::kCtxSync:
      Log("context sync",
          client_.Call(cuda::CtxSynchronizeArgs{.context = context_.id}));
      return;
    case Step::kInfo:
      Log("info", client_.Call(cuda::MemGetInfoArgs{.context = context_.id}));
      return;
    default:
      Log("wrong free", client_.Call(cuda::MemFreeArgs{.address = 4096}));
      Log("wrong stream",
          client_.Call(cuda::StreamQueryArgs{.stream = step.seed}));
      Log("too much", client_.Call(cuda::MemAllocArgs{.context = context_.id,
                                                      .bytes = 1ull << 40}));
      return;
  }
}

void ScriptPlayer::End() {
  while (!answers_.empty()) {
    Fetch(answers_.front());
    answers_.pop_front();
  }
  Log("end", client_.Call(cuda::CtxSynchronizeArgs{.context = context_.id}));
  for (const std::uint64_t stream : streams_) {
    Log("stream", client_.Call(cuda::StreamQueryArgs{.stream = stream}));
  }
  for (const Event& event : events_) {
    Log("event", client_.Call(cuda::EventQueryArgs{.event = event.id}));
  }
  const auto out = [this](const char* what, const Memory& memory) {
    for (std::uint64_t at = 0; at < memory.bytes; at += kMiB) {
      const std::vector<std::byte> bytes =
          client_.CopyOut(context_.stream, memory.address + at,
                          std::min(kMiB, memory.bytes - at));
      Log(what, static_cast<std::int64_t>(HashOf(bytes)));
    }
  };
  for (const Memory& memory : buffers_) out("buffer", memory);
  for (const Module& module : modules_) out("variable", module.variable);
  // What a program has not written there yet is zero.
  for (const Memory& host : hosts_) {
    Log("host",
        static_cast<std::int64_t>(HashOf(
            {reinterpret_cast<const std::byte*>(host.address), host.bytes})));
  }
  Log("sticky", client_.ring().sticky_error());
}

}  // namespace pos
