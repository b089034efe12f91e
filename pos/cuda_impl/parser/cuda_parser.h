// The parser's half of the CUDA calls: resolves handles and addresses, decides
// ids and addresses of what is created, answers what needs no device.
//
// One method a call of calls.def. Arguments are the client's and checked here:
// a bad handle or range is answered with the error that the driver gives; where
// the call has no reply (an honest client library checked before it sent), the
// call is dropped with a log line and the error is reported by the next call
// that synchronizes.
//
// Threads: the parser's.
#ifndef POS_CUDA_IMPL_PARSER_CUDA_PARSER_H_
#define POS_CUDA_IMPL_PARSER_CUDA_PARSER_H_

#include <atomic>
#include <cstdint>

#include "pos/call/client_port.h"
#include "pos/cuda_impl/api/calls.h"
#include "pos/cuda_impl/parser/session_state.h"
#include "pos/parser/parser.h"

namespace pos::cuda {

class CudaParser : public ApiParser {
 public:
  CudaParser(SessionState* state, ClientPort* port)
      : state_(state), port_(port) {}

  Outcome Parse(ApiContext* context) override;
  void OnNotice(const Notice& notice) override;

  // An error of a call without a reply, for the worker to report. Any thread.
  std::atomic<std::int32_t>& dropped_error() { return dropped_error_; }

 private:
#define POS_CALL(id, name, reply, payload, args, out) \
  Outcome Parse##name(ApiContext* context, const name##Args& args_in);
#include "pos/cuda_impl/api/calls.def"
#undef POS_CALL

  // The call fails with `error`.
  Outcome Refuse(ApiContext* context, std::int32_t error, const char* why);
  // Resolves `id` into context->handles[place]; nullptr when it does not.
  Handle* Resolve(ApiContext* context, int place, HandleKind kind, HandleId id);
  Outcome CreateChild(ApiContext* context, HandleKind kind, HandleId parent,
                      std::uint64_t* out_id);
  Outcome Destroy(ApiContext* context, HandleKind kind, HandleId id);
  Outcome Allocate(ApiContext* context, Handle* owner, std::uint64_t bytes,
                   std::uint64_t* address);
  [[nodiscard]] bool Accessible(std::uint64_t address,
                                std::uint64_t bytes) const;
  [[nodiscard]] static int DeviceOf(const Handle* context);
  [[nodiscard]] static Handle* ContextOf(Handle* handle);
  void FreeBlock(std::uint64_t address);
  [[nodiscard]] bool KnownDevice(std::int32_t device) const {
    return device >= 0 &&
           static_cast<std::size_t>(device) < state_->devices.size();
  }
  // Whether mappings of the client's cover all of the range; `visit` sees each.
  template <typename Visit>
  bool ForMappings(std::uint64_t address, std::uint64_t bytes,
                   const Visit& visit);

  SessionState* const state_;
  ClientPort* const port_;
  std::atomic<std::int32_t> dropped_error_{0};
  // Blocks that came back so far, from 1.
  std::uint64_t frees_seen_ = 1;
};

}  // namespace pos::cuda

#endif  // POS_CUDA_IMPL_PARSER_CUDA_PARSER_H_
