#include "remoting/shim/driver_state.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <set>

#include "pos/base/log.h"
#include "remoting/shim/driver_log.h"
#include "remoting/shim/managed.h"
#include "remoting/shim/unsupported.h"

namespace pos::shim {
namespace {

// What a device may be able to do and this library refuses: programs that ask
// first take another way.
constexpr std::array kNotServed = {
    // Managed memory is the host's: a device's atomics there are not the
    // host's.
    CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS,
    CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS,
    CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,
    CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED,
};

}  // namespace

void RangeMap::Add(const Range& range) {
  const std::unique_lock lock(mu_);
  ranges_[range.address] = range;
}

bool RangeMap::Remove(std::uint64_t address, Range* removed) {
  const std::unique_lock lock(mu_);
  const auto it = ranges_.find(address);
  if (it == ranges_.end()) return false;
  if (removed != nullptr) *removed = it->second;
  ranges_.erase(it);
  return true;
}

bool RangeMap::Find(std::uint64_t address, Range* range) const {
  const std::shared_lock lock(mu_);
  auto it = ranges_.upper_bound(address);
  if (it == ranges_.begin()) return false;
  --it;
  if (address - it->first >= it->second.bytes) return false;
  *range = it->second;
  return true;
}

bool RangeMap::Holds(std::uint64_t address, std::uint64_t bytes) const {
  const std::shared_lock lock(mu_);
  auto it = ranges_.upper_bound(address);
  if (it == ranges_.begin()) return false;
  --it;
  const std::uint64_t offset = address - it->first;
  return offset < it->second.bytes && bytes <= it->second.bytes - offset;
}

std::vector<Range> RangeMap::RemoveOf(const Context* context) {
  std::vector<Range> managed;
  const std::unique_lock lock(mu_);
  std::erase_if(ranges_, [context, &managed](const auto& entry) {
    const Range& range = entry.second;
    if (range.context != context) return false;
    if (range.managed) managed.push_back(range);
    return range.managed || !range.IsHost();
  });
  return managed;
}

std::vector<std::byte> StagedAnswer::Take(std::uint64_t bytes) const {
  std::vector<std::byte> out(std::min(bytes, bytes_));
  if (!Client::Get().WithStaging(lease_, [&](const std::byte* staged) {
        std::memcpy(out.data(), staged, out.size());
      })) {
    out.clear();
  }
  return out;
}

Driver& Driver::Get() {
  // Leaked: exit handlers call in after static destructors have run.
  static Driver* const driver = new Driver;
  return *driver;
}

CUresult Driver::Unsupported(const char* name) {
  static Mutex* const mu = new Mutex;
  static auto* const logged = new std::set<std::string>;
  {
    MutexLock lock(mu);
    if (logged->insert(name).second) {
      Log(LogLevel::kWarning, "not supported", {{"function", name}});
    }
  }
  DriverLog::Get().Add(CU_LOG_LEVEL_ERROR,
                       std::string("POS does not support ") + name);
  return CUDA_ERROR_NOT_SUPPORTED;
}

int RefuseFunction(const char* name) { return Driver::Unsupported(name); }

CUresult Driver::Init() {
  const Client::State state = Client::Get().state();
  if (state == Client::State::kForked) return CUDA_ERROR_NOT_INITIALIZED;
  if (initialized_.load(std::memory_order_acquire)) return Ready();
  MutexLock lock(&init_mu_);
  if (initialized_.load(std::memory_order_acquire)) return CUDA_SUCCESS;
  SetLogName("pos-shim");
  const Status status = Client::Get().Attach();
  if (!status.ok()) {
    Log(LogLevel::kError, "no device: " + status.message(),
        {{"hint", status.hint().empty()
                      ? "start the program with `pos-cli run -- PROGRAM`"
                      : status.hint()}});
    return CUDA_ERROR_NO_DEVICE;
  }
  if (const CUresult result = FetchDevices(); result != CUDA_SUCCESS) {
    return result;
  }
  initialized_.store(true, std::memory_order_release);
  return CUDA_SUCCESS;
}

CUresult Driver::Ready() const {
  switch (Client::Get().state()) {
    case Client::State::kAttached:
      return initialized_.load(std::memory_order_acquire)
                 ? CUDA_SUCCESS
                 : CUDA_ERROR_NOT_INITIALIZED;
    case Client::State::kLost:
      return static_cast<CUresult>(kLostError);
    case Client::State::kNone:
    case Client::State::kForked:
      break;
  }
  return CUDA_ERROR_NOT_INITIALIZED;
}

CUresult Driver::FetchDevices() {
  const StagedAnswer staged(wire::kLeaseBytes);
  if (!staged.ok()) return static_cast<CUresult>(kLostError);
  cuda::DeviceTableOut out;
  Reply reply;
  const std::int32_t result =
      Client::Get().Call(static_cast<std::uint16_t>(cuda::Op::kDeviceTable), {},
                         staged.AsPayload(), &reply);
  if (result != 0) return static_cast<CUresult>(result);
  std::memcpy(&out, reply.data.data(), sizeof(out));
  const std::vector<std::byte> bytes = staged.Take(reply.bulk_bytes);
  ByteReader in(bytes);
  for (std::uint32_t i = 0; i < out.count && in.ok(); ++i) {
    const auto record = in.Get<cuda::DeviceRecord>();
    DeviceState device;
    device.name = record.name;
    std::copy(std::begin(record.uuid), std::end(record.uuid),
              device.uuid.begin());
    device.memory_bytes = record.memory_bytes;
    for (std::uint64_t k = 0; k < record.attribute_count && in.ok(); ++k) {
      const auto attribute = in.Get<cuda::DeviceAttribute>();
      const auto number = static_cast<std::size_t>(attribute.attribute);
      if (number >= device.attributes.size()) {
        device.attributes.resize(number + 1);
      }
      device.attributes[number] = attribute.value;
    }
    for (const CUdevice_attribute a : kNotServed) {
      const auto number = static_cast<std::size_t>(a);
      if (number < device.attributes.size()) device.attributes[number] = 0;
    }
    devices_.push_back(std::move(device));
  }
  if (!in.ok()) return CUDA_ERROR_UNKNOWN;
  for (int i = 0; i < device_count(); ++i) {
    primaries_.push_back(NewContext(i, 0, true));
  }
  return CUDA_SUCCESS;
}

Context* Driver::NewContext(int device, std::uint32_t flags, bool primary) {
  const std::uint64_t id =
      (std::uint64_t{cuda::kContextHandle} << 56) | contexts.NextIndex();
  Context* const context = contexts.Make(id);
  if (context == nullptr) return nullptr;
  context->device = device;
  context->primary = primary;
  context->flags.store(flags, std::memory_order_relaxed);
  context->unique_id = NextUniqueId();
  context->id.store(id, std::memory_order_release);
  return context;
}

CUresult Driver::Activate(Context* context) {
  cuda::CtxCreateOut out;
  const CUresult result = Call(
      cuda::CtxCreateArgs{
          .device = context->device,
          .flags = context->flags.load(std::memory_order_relaxed)},
      &out);
  if (result != CUDA_SUCCESS) return result;
  Stream* const stream = streams.Make(out.stream);
  if (stream == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  stream->context = context;
  stream->flags = 0;
  stream->priority = 0;
  stream->unique_id = NextUniqueId();
  stream->id.store(out.stream, std::memory_order_release);
  context->default_stream.store(out.stream, std::memory_order_release);
  context->generation.store(NextUniqueId(), std::memory_order_release);
  context->runner_id.store(out.context, std::memory_order_release);
  return CUDA_SUCCESS;
}

CUresult Driver::Deactivate(Context* context) {
  if (context->runner_id.load(std::memory_order_acquire) == 0) {
    return CUDA_SUCCESS;
  }
  // The program sees what its kernels print before the context goes.
  if (context->prints.exchange(false, std::memory_order_acq_rel)) {
    (void)CallNoOut(cuda::CtxSynchronizeArgs{
        .context = context->runner_id.load(std::memory_order_acquire)});
  }
  // What libraries keep with the context may still call in.
  if (void (*const hook)(Context*) =
          context_end_.load(std::memory_order_acquire)) {
    hook(context);
  }
  const std::uint64_t runner_id =
      context->runner_id.exchange(0, std::memory_order_acq_rel);
  if (runner_id == 0) return CUDA_SUCCESS;
  context->generation.store(0, std::memory_order_release);
  const auto forget = [context](auto* object) {
    if (object->context == context) {
      object->id.store(0, std::memory_order_release);
    }
  };
  streams.ForEach(forget);
  events.ForEach(forget);
  functions.ForEach(forget);
  modules.ForEach(forget);
  const std::vector<Range> managed = ranges.RemoveOf(context);
  Payload payload;
  payload.despite_fault = true;
  const CUresult result =
      CallNoOut(cuda::CtxDestroyArgs{.context = runner_id}, payload);
  // Its kernels have ended.
  for (const Range& range : managed) ReleaseHost(range, payload);
  return result;
}

CUresult Driver::Current(Context** context) const {
  if (const CUresult ready = Ready(); ready != CUDA_SUCCESS) return ready;
  const ThreadState* const thread = CurrentThread();
  if (thread->contexts.empty() || thread->contexts.back() == nullptr) {
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  *context = thread->contexts.back();
  if ((*context)->runner_id.load(std::memory_order_acquire) == 0) {
    return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  }
  return CUDA_SUCCESS;
}

Context* Driver::CurrentOrPrimary() const {
  Context* context = nullptr;
  if (Current(&context) == CUDA_SUCCESS) return context;
  for (Context* const primary : primaries_) {
    if (primary->runner_id.load(std::memory_order_acquire) != 0) return primary;
  }
  return nullptr;
}

CUresult Driver::OwnStream(Context* context, std::uint64_t* id) {
  ThreadState* const thread = CurrentThread();
  const std::uint64_t generation =
      context->generation.load(std::memory_order_acquire);
  for (const ThreadState::OwnStream& own : thread->own_streams) {
    if (own.context_generation == generation) {
      *id = own.stream;
      return CUDA_SUCCESS;
    }
  }
  cuda::StreamCreateOut out;
  const CUresult result = Call(
      cuda::StreamCreateArgs{
          .context = context->runner_id.load(std::memory_order_acquire),
          .flags = 0,
          .priority = 0},
      &out);
  if (result != CUDA_SUCCESS) return result;
  Stream* const stream = streams.Make(out.stream);
  if (stream == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  stream->context = context;
  stream->flags = 0;
  stream->priority = 0;
  stream->unique_id = NextUniqueId();
  stream->id.store(out.stream, std::memory_order_release);
  thread->own_streams.push_back({generation, out.stream});
  *id = out.stream;
  return CUDA_SUCCESS;
}

void Driver::DropOwnStreams(ThreadState* thread) {
  if (thread->own_streams.empty() || Ready() != CUDA_SUCCESS) return;
  for (const ThreadState::OwnStream& own : thread->own_streams) {
    Stream* const stream = streams.Get(own.stream);
    // Its context may have taken it along.
    if (stream == nullptr ||
        stream->context->generation.load(std::memory_order_acquire) !=
            own.context_generation) {
      continue;
    }
    stream->id.store(0, std::memory_order_release);
    // What is on it is still done. Nobody is there to hear of an error.
    (void)CallNoOut(cuda::StreamDestroyArgs{.stream = own.stream});
  }
  thread->own_streams.clear();
}

CUresult Driver::Resolve(CUstream handle, bool per_thread, Context** context,
                         std::uint64_t* id) {
  const auto value = reinterpret_cast<std::uint64_t>(handle);
  if (value > 2) [[likely]] {
    if (const CUresult ready = Ready(); ready != CUDA_SUCCESS) return ready;
    const Stream* const stream = streams.Get(value);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *context = stream->context;
    *id = value;
    return CUDA_SUCCESS;
  }
  if (const CUresult result = Current(context); result != CUDA_SUCCESS) {
    return result;
  }
  const bool own = value == 2 || (value == 0 && per_thread);
  if (own) return OwnStream(*context, id);
  *id = (*context)->default_stream.load(std::memory_order_acquire);
  return CUDA_SUCCESS;
}

}  // namespace pos::shim
