// NVIDIA's runtime (libcudart, static or shared, and the copies inside cuBLAS,
// cuDNN and the rest) does not work with public entry points alone: it fetches
// tables of unnamed functions by UUID and checks the driver with a keyed hash.
// Everything about that is here and in context_storage.cc, and nothing else
// depends on it:
// without it (POS_PRIVATE_TABLES off) programs that use the driver API directly
// work.
//
// What is known comes from public projects that document it: ZLUDA (tables,
// slots, the hash's key and constants) and LUPINE (kevmo314/scuda; slots used
// by cuBLAS); sizes, order of use and what may be absent were measured with
// libraries of CUDA 13.0 and 13.2. Slots that nobody was seen to call refuse.
//
// All functions here are local: the runner is not asked.
#include <pthread.h>
#include <unistd.h>

#include <array>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pos/base/bytes.h"
#include "pos/base/log.h"
#include "remoting/shim/context_storage.h"
#include "remoting/shim/driver_log.h"
#include "remoting/shim/driver_state.h"
#include "remoting/shim/md2.h"
#include "remoting/shim/unsupported.h"

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

// The runtime of 13.2 calls this while it initializes and fails with what it
// returns. A driver would load its compilers here; ours are the runner's.
CUresult LoadCompilers() { return CUDA_SUCCESS; }

// --- ERROR_LOG: where the runtime puts its messages (cuLogs…). ---

constexpr std::size_t kLongestMessage = 1024;

[[gnu::format(printf, 3, 0)]] void LogFromRuntime(const char* component,
                                                  int level, const char* format,
                                                  va_list arguments) {
  if (format == nullptr) return;
  std::array<char, kLongestMessage> text{};
  std::vsnprintf(text.data(), text.size(), format, arguments);
  POS_LOG(kDebug, "the runtime says",
          {{"component", component == nullptr ? "" : component},
           {"text", text.data()}});
  DriverLog::Get().Add(level == 0 ? CU_LOG_LEVEL_ERROR : CU_LOG_LEVEL_WARNING,
                       text.data());
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

// Every table is followed by more words than it says it has: a later library
// that does not look at the size calls a function, not what lies behind.
constexpr std::size_t kWords = 72;
using Table = std::array<Word, kWords>;

struct Kind {
  const char* name;  // as in docs/driver-api.md
  const char* uuid;
  std::size_t words;  // 0: has no size in word 0
  Word refusal = CUDA_ERROR_NOT_SUPPORTED;
};
enum TableId : std::size_t {
  kCudart,
  kRuntimeCallbacks,
  kThread,
  kStorage,
  kChecks,
  kIntegrity,
  kContext,
  kModule,
  kErrorLog,
  kTables
};
constexpr std::array<Kind, kTables> kKinds = {{
    {"CUDART", "6bd5fb6c-5bf4-e74a-8987-d93912fd9df9", 13},
    {"TOOLS_RT_CB", "a094798c-2e74-2e74-93f2-0800200c0a66", 7},
    {"TOOLS_TLS", "42d85a81-23f6-cb47-8298-f6e78a3aecdc", 4},
    {"CLS", "c693336e-1121-df11-a8c3-68f355d89593", 0},
    {"CTX_CHECKS", "263e8860-7cd2-6143-92f6-bbd5006dfa7e", 4},
    {"INTEGRITY", "d4082055-bde6-704b-8d34-ba123c66e1f2", 3},
    {"TOOLS_CTX", "21318c60-9714-3248-8ca6-41ff7324c8f2", 56},
    // Its functions return 1 for success.
    {"TOOLS_MODULE", "6e163fbe-b958-444d-835c-e182aff1991e", 10, 0},
    {"ERROR_LOG", "f8cff951-2146-8b4e-b9e2-fb469e7c0dd9", 2},
}};

// In every slot that nothing is known of. Takes any arguments: they are the
// caller's to clean up.
template <std::size_t kTable, std::size_t kSlot>
Word RefuseSlot() {
  RefuseFunction((std::string("slot ") + std::to_string(kSlot) +
                  " of private table " + kKinds[kTable].name)
                     .c_str());
  return kKinds[kTable].refusal;
}

template <std::size_t kTable, std::size_t... kSlots>
Table Refusing(std::index_sequence<kSlots...>) {
  return {Slot(&RefuseSlot<kTable, kSlots>)...};
}

template <std::size_t kTable>
Table MakeTable(std::initializer_list<std::pair<std::size_t, Word>> slots) {
  Table table = Refusing<kTable>(std::make_index_sequence<kWords>());
  if (kKinds[kTable].words != 0) {
    table[0] = kKinds[kTable].words * sizeof(Word);
  }
  for (const auto& [at, value] : slots) table[at] = value;
  return table;
}

struct Tables {
  std::array<Table, kTables> all = {
      MakeTable<kCudart>(
          {{2, Slot(&GetPrimaryContext)}, {12, Slot(&LoadCompilers)}}),
      MakeTable<kRuntimeCallbacks>(
          {{2, Slot(&GetFirstBuffer)}, {6, Slot(&GetSecondBuffer)}}),
      MakeTable<kThread>({{2, Slot(&GetCurrentContext)}}),
      MakeTable<kStorage>({{0, Slot(&StoragePut)},
                           {1, Slot(&StorageDelete)},
                           {2, Slot(&StorageGet)}}),
      MakeTable<kChecks>({{2, Slot(&CheckContext)}, {3, Slot(&CheckNothing)}}),
      MakeTable<kIntegrity>({{1, Slot(&Handshake)}}),
      MakeTable<kContext>({{4, Slot(&GetContextId)},
                           {39, Slot(&GetStreamId)},
                           {51, Slot(&ResolveStreamObject)}}),
      MakeTable<kModule>({{7, Slot(&EachFunction)}}),
      MakeTable<kErrorLog>({{1, Slot(&LogFromRuntime)}}),
  };
};

const Tables& AllTables() {
  static const Tables* const tables = [] {
    Driver::Get().SetContextEndHook(&RunStorageDestructors);
    return new Tables;
  }();
  return *tables;
}

std::string UuidText(const CUuuid& uuid) {
  const std::string hex = HexBytes(std::as_bytes(std::span(uuid.bytes)));
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) +
         "-" + hex.substr(16, 4) + "-" + hex.substr(20);
}

const Word* FindTable(const std::string& uuid) {
  for (std::size_t i = 0; i < kTables; ++i) {
    if (uuid == kKinds[i].uuid) return AllTables().all[i].data();
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
  message.Put(reinterpret_cast<Word>(tables.all[kCudart].data()));
  message.Put(reinterpret_cast<Word>(tables.all[kIntegrity].data()));
  message.Put(tables.all[kIntegrity][1]);
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
