#include "remoting/shim/context_storage.h"

#include <atomic>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "pos/base/mutex.h"
#include "remoting/shim/thread_state.h"

namespace pos::shim {
namespace {

struct LocalStorage {
  Mutex mu;
  struct Value {
    void* value = nullptr;
    StorageDestructor destructor = nullptr;
  };
  std::map<std::pair<const Context*, void*>, Value> values POS_GUARDED_BY(mu);
  // Counts changes; what a thread remembers is good until the next one.
  std::atomic<std::uint64_t> version{1};
};

LocalStorage& Storage() {
  static LocalStorage* const storage = new LocalStorage;
  return *storage;
}

}  // namespace

Context* ContextOrCurrent(CUcontext handle) {
  if (handle != nullptr) return Driver::Get().FindContext(handle);
  const std::vector<Context*>& stack = CurrentThread()->contexts;
  return stack.empty() ? nullptr : stack.back();
}

CUresult StoragePut(CUcontext handle, void* key, void* value,
                    StorageDestructor destructor) {
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

void RunStorageDestructors(Context* context) {
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

}  // namespace pos::shim
