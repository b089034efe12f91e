// NVIDIA's runtime (libcudart, static or shared, and the copies inside cuBLAS,
// cuDNN and the rest) does not work with public entry points alone: it fetches
// tables of unnamed functions by UUID and checks the driver with a keyed hash.
// Everything about that is in this file, and nothing else depends on it:
// without it (POS_PRIVATE_TABLES off) programs that use the driver API directly
// work.
//
// What is known comes from public projects that document it: ZLUDA (tables,
// slots, the hash's key and constants) and LUPINE (kevmo314/scuda; slots used
// by cuBLAS); sizes, order of use and what may be absent were measured with
// CUDA 13.0's libraries. Slots that nobody was seen to call are null.
//
// All functions here are local: the runner is not asked.
#include <pthread.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/log.h"
#include "remoting/shim/driver_state.h"
#include "remoting/shim/md2.h"

namespace pos::shim {
namespace {

using Word = std::uint64_t;

// --- CUDART ---

// The device's primary context, without retaining it.
CUresult GetPrimaryContext(CUcontext* out, CUdevice device) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (Driver::Get().device(device) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *out = Driver::HandleOf(Driver::Get().primary(device));
  return CUDA_SUCCESS;
}

// --- TOOLS_RT_CB: where a profiler's callbacks would be; zeros say "none". ---

constexpr std::size_t kFirstBufferWords = 1024;
constexpr std::size_t kSecondBufferWords = 14;
// Larger than what is announced: how much is read is not documented.
std::array<std::uint32_t, 4096> g_first_buffer;
std::array<std::uint32_t, 64> g_second_buffer;

void GetFirstBuffer(void** buffer, std::size_t* words) {
  *buffer = g_first_buffer.data();
  *words = kFirstBufferWords;
}
void GetSecondBuffer(void** buffer, std::size_t* words) {
  *buffer = g_second_buffer.data();
  *words = kSecondBufferWords;
}

// --- TOOLS_TLS ---

CUresult GetCurrentContext(CUcontext* out) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const std::vector<Context*>& stack = CurrentThread()->contexts;
  *out = stack.empty() ? nullptr : Driver::HandleOf(stack.back());
  return CUDA_SUCCESS;
}

// --- CLS: values that libraries keep with a context. ---

using Destructor = void (*)(CUcontext, void* key, void* value);

struct LocalStorage {
  Mutex mu;
  struct Value {
    void* value = nullptr;
    Destructor destructor = nullptr;
  };
  std::map<std::pair<const Context*, void*>, Value> values POS_GUARDED_BY(mu);
  // Counts changes; what a thread remembers is good until the next one.
  std::atomic<std::uint64_t> version{1};
};

LocalStorage& Storage() {
  static LocalStorage* const storage = new LocalStorage;
  return *storage;
}

Context* ContextOrCurrent(CUcontext handle) {
  if (handle != nullptr) return Driver::Get().FindContext(handle);
  const std::vector<Context*>& stack = CurrentThread()->contexts;
  return stack.empty() ? nullptr : stack.back();
}

CUresult StoragePut(CUcontext handle, void* key, void* value,
                    Destructor destructor) {
  const Context* const context = ContextOrCurrent(handle);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  LocalStorage& storage = Storage();
  MutexLock lock(&storage.mu);
  storage.values[{context, key}] = {value, destructor};
  storage.version.fetch_add(1, std::memory_order_release);
  return CUDA_SUCCESS;
}

CUresult StorageDelete(CUcontext handle, void* key) {
  const Context* const context = ContextOrCurrent(handle);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  LocalStorage& storage = Storage();
  MutexLock lock(&storage.mu);
  storage.version.fetch_add(1, std::memory_order_release);
  return storage.values.erase({context, key}) != 0 ? CUDA_SUCCESS
                                                   : CUDA_ERROR_INVALID_HANDLE;
}

// Called at the head of nearly every function of the runtime. It takes these
// two answers, 201 and 400, as "not initialized yet".
CUresult StorageGet(void** value, CUcontext handle, void* key) {
  const Context* const context = ContextOrCurrent(handle);
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  // The last answer of this thread is nearly always the next one, too.
  struct Cached {
    const Context* context = nullptr;
    void* key = nullptr;
    void* value = nullptr;
    std::uint64_t version = 0;
  };
  thread_local Cached cached;
  LocalStorage& storage = Storage();
  if (cached.context == context && cached.key == key &&
      cached.version == storage.version.load(std::memory_order_acquire)) {
    *value = cached.value;
    return CUDA_SUCCESS;
  }
  MutexLock lock(&storage.mu);
  const auto it = storage.values.find({context, key});
  if (it == storage.values.end()) return CUDA_ERROR_INVALID_HANDLE;
  *value = it->second.value;
  cached = {context, key, *value,
            storage.version.load(std::memory_order_relaxed)};
  return CUDA_SUCCESS;
}

void RunDestructors(Context* context) {
  LocalStorage& storage = Storage();
  std::vector<std::pair<void*, LocalStorage::Value>> ending;
  {
    MutexLock lock(&storage.mu);
    storage.version.fetch_add(1, std::memory_order_release);
    for (auto it = storage.values.begin(); it != storage.values.end();) {
      if (it->first.first == context) {
        ending.emplace_back(it->first.second, it->second);
        it = storage.values.erase(it);
      } else {
        ++it;
      }
    }
  }
  for (const auto& [key, value] : ending) {
    if (value.destructor != nullptr) {
      value.destructor(Driver::HandleOf(context), key, value.value);
    }
  }
}

// --- CTX_CHECKS ---

CUresult CheckContext(CUcontext, std::uint32_t* flag, void**) {
  if (flag != nullptr) *flag = 0;
  return CUDA_SUCCESS;
}
CUresult CheckNothing() { return CUDA_SUCCESS; }

// --- TOOLS_CTX: stable numbers for contexts and streams. ---

CUresult GetContextId(CUcontext handle, std::uint64_t* id) {
  const Context* const context = ContextOrCurrent(handle);
  if (context == nullptr || id == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *id = context->unique_id;
  return CUDA_SUCCESS;
}

CUresult ResolveStreamObject(CUcontext, CUstream handle, void** object,
                             int per_thread) {
  Context* context = nullptr;
  std::uint64_t id = 0;
  const CUresult result =
      Driver::Get().Resolve(handle, per_thread != 0, &context, &id);
  if (result != CUDA_SUCCESS) return result;
  *object = Driver::Get().streams.Get(id);
  return *object == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

CUresult GetStreamId(CUcontext, void* object, std::uint64_t* id) {
  if (object == nullptr || id == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  *id = static_cast<const Stream*>(object)->unique_id;
  return CUDA_SUCCESS;
}

// --- TOOLS_MODULE ---

// Calls back for each function of the module. Returns 1 for success.
int EachFunction(CUcontext, CUmodule module,
                 void (*callback)(void* user, CUfunction function),
                 void* user) {
  unsigned count = 0;
  if (cuModuleGetFunctionCount(&count, module) != CUDA_SUCCESS) return 0;
  std::vector<CUfunction> functions(count);
  if (count != 0 && cuModuleEnumerateFunctions(functions.data(), count,
                                               module) != CUDA_SUCCESS) {
    return 0;
  }
  for (CUfunction function : functions) callback(user, function);
  return 1;
}

// --- INTEGRITY: the handshake ---

CUresult Handshake(std::uint32_t version, std::uint64_t unix_time,
                   std::uint8_t* out);

// --- The tables ---

template <typename F>
Word Slot(F* function) {
  return reinterpret_cast<Word>(function);
}

// Word 0 is the size in bytes, but for CLS, which has none.
template <std::size_t kWords>
std::array<Word, kWords> MakeTable(
    std::initializer_list<std::pair<std::size_t, Word>> slots,
    bool with_size = true) {
  std::array<Word, kWords> table{};
  if (with_size) table[0] = kWords * sizeof(Word);
  for (const auto& [at, value] : slots) table[at] = value;
  return table;
}

struct Tables {
  std::array<Word, 13> cudart = MakeTable<13>({{2, Slot(&GetPrimaryContext)}});
  std::array<Word, 7> runtime_callbacks =
      MakeTable<7>({{2, Slot(&GetFirstBuffer)}, {6, Slot(&GetSecondBuffer)}});
  std::array<Word, 4> tls = MakeTable<4>({{2, Slot(&GetCurrentContext)}});
  std::array<Word, 3> storage = MakeTable<3>({{0, Slot(&StoragePut)},
                                              {1, Slot(&StorageDelete)},
                                              {2, Slot(&StorageGet)}},
                                             false);
  std::array<Word, 4> checks =
      MakeTable<4>({{2, Slot(&CheckContext)}, {3, Slot(&CheckNothing)}});
  std::array<Word, 3> integrity = MakeTable<3>({{1, Slot(&Handshake)}});
  std::array<Word, 56> context =
      MakeTable<56>({{4, Slot(&GetContextId)},
                     {39, Slot(&GetStreamId)},
                     {51, Slot(&ResolveStreamObject)}});
  std::array<Word, 10> module = MakeTable<10>({{7, Slot(&EachFunction)}});
};

const Tables& AllTables() {
  static const Tables* const tables = [] {
    Driver::Get().SetContextEndHook(&RunDestructors);
    return new Tables;
  }();
  return *tables;
}

struct Named {
  const char* uuid;
  const Word* table;
};

std::string UuidText(const CUuuid& uuid) {
  const std::string hex = HexBytes(std::as_bytes(std::span(uuid.bytes)));
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) +
         "-" + hex.substr(16, 4) + "-" + hex.substr(20);
}

const Word* FindTable(const std::string& uuid) {
  const Tables& t = AllTables();
  const std::array<Named, 8> named = {{
      {"6bd5fb6c-5bf4-e74a-8987-d93912fd9df9", t.cudart.data()},
      {"a094798c-2e74-2e74-93f2-0800200c0a66", t.runtime_callbacks.data()},
      {"42d85a81-23f6-cb47-8298-f6e78a3aecdc", t.tls.data()},
      {"c693336e-1121-df11-a8c3-68f355d89593", t.storage.data()},
      {"263e8860-7cd2-6143-92f6-bbd5006dfa7e", t.checks.data()},
      {"d4082055-bde6-704b-8d34-ba123c66e1f2", t.integrity.data()},
      {"21318c60-9714-3248-8ca6-41ff7324c8f2", t.context.data()},
      {"6e163fbe-b958-444d-835c-e182aff1991e", t.module.data()},
  }};
  for (const Named& n : named) {
    if (uuid == n.uuid) return n.table;
  }
  return nullptr;
}

// The last decimal digit of `version` chooses: 0 and 1 have fixed answers, all
// others are HMAC-MD2 over what both sides know: versions, process, thread, the
// addresses that the caller got, the time, and the devices it was shown.
CUresult Handshake(std::uint32_t version, std::uint64_t unix_time,
                   std::uint8_t* out) {
  static constexpr std::array<std::uint8_t, 16> kAnswer0 = {
      0x5c, 0x67, 0xcb, 0x03, 0x1c, 0x18, 0x41, 0x33,
      0xe8, 0xd1, 0x4c, 0x1f, 0xaa, 0x83, 0xd3, 0x8e};
  static constexpr std::array<std::uint8_t, 16> kAnswer1 = {
      0x5c, 0x67, 0xcb, 0x03, 0x1c, 0x18, 0x41, 0x18,
      0xe8, 0xd1, 0x4c, 0x1f, 0xaa, 0x83, 0xd3, 0x8e};
  static constexpr std::array<std::uint8_t, 16> kKey = {
      0x14, 0x6a, 0xdd, 0xae, 0x53, 0xa9, 0xa7, 0x52,
      0xaa, 0x08, 0x41, 0x36, 0x0b, 0xf5, 0x5a, 0x9f};
  if (version % 10 < 2) {
    const auto& answer = version % 10 == 0 ? kAnswer0 : kAnswer1;
    std::memcpy(out, answer.data(), answer.size());
    return CUDA_SUCCESS;
  }
  const Tables& tables = AllTables();
  int driver_version = 0;
  cuDriverGetVersion(&driver_version);
  ByteWriter message;
  message.Put(static_cast<std::uint32_t>(driver_version));
  message.Put(version);
  message.Put(static_cast<std::uint32_t>(::getpid()));
  message.Put(static_cast<std::uint32_t>(::pthread_self()));
  message.Put(reinterpret_cast<Word>(tables.cudart.data()));
  message.Put(reinterpret_cast<Word>(tables.integrity.data()));
  message.Put(tables.integrity[1]);
  message.Put(unix_time);
  for (int i = 0; i < Driver::Get().device_count(); ++i) {
    const DeviceState* const device = Driver::Get().device(i);
    message.Put(device->uuid);
    message.Put(device->Attribute(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID));
    message.Put(device->Attribute(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID));
    message.Put(device->Attribute(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID));
  }
  const Md2Digest digest =
      HmacMd2(std::as_bytes(std::span(kKey)), message.bytes());
  std::memcpy(out, digest.data(), digest.size());
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace pos::shim

CUresult CUDAAPI cuGetExportTable(const void** table, const CUuuid* uuid) {
  if (table == nullptr || uuid == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const std::string name = pos::shim::UuidText(*uuid);
  *table = pos::shim::FindTable(name);
  if (*table != nullptr) return CUDA_SUCCESS;
  POS_LOG(kDebug, "unknown private table", {{"uuid", name}});
  return CUDA_ERROR_INVALID_VALUE;
}
