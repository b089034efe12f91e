// Values that libraries keep with a context: the private table CLS
// (private_tables.cc). With the destructors that the libraries give along,
// which run when the context ends.
//
// Threads: any. Blocking: on a lock of its own; destructors run without it.
#ifndef REMOTING_SHIM_CONTEXT_STORAGE_H_
#define REMOTING_SHIM_CONTEXT_STORAGE_H_

#include "remoting/shim/driver.h"
#include "remoting/shim/driver_state.h"

namespace pos::shim {

using StorageDestructor = void (*)(CUcontext, void* key, void* value);

// Null: the thread's current context. Null when there is none.
Context* ContextOrCurrent(CUcontext handle);

CUresult StoragePut(CUcontext handle, void* key, void* value,
                    StorageDestructor destructor);
CUresult StorageDelete(CUcontext handle, void* key);
// Called at the head of nearly every function of the runtime. It takes these
// two answers, CUDA_ERROR_INVALID_CONTEXT and CUDA_ERROR_INVALID_HANDLE, as
// "not initialized yet".
CUresult StorageGet(void** value, CUcontext handle, void* key);

// What the end of a context calls.
void RunStorageDestructors(Context* context);

}  // namespace pos::shim

#endif  // REMOTING_SHIM_CONTEXT_STORAGE_H_
