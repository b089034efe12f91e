// Stand-ins for what the parser and worker stages talk to.
#ifndef POS_TESTS_SUPPORT_FAKE_STAGES_H_
#define POS_TESTS_SUPPORT_FAKE_STAGES_H_

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "pos/base/mutex.h"
#include "pos/call/client_port.h"
#include "pos/parser/parser.h"
#include "pos/worker/worker.h"

namespace pos {

// Remembers what was answered and released, by pc.
class FakePort : public ClientPort {
 public:
  void Reply(ApiContext* context) override {
    const MutexLock lock(&mu_);
    context->answered = true;
    ++replies_[context->pc];
    results_[context->pc] = context->result;
    order_.push_back(context->pc);
  }
  std::span<const std::byte> BulkIn(const ApiContext&) override { return {}; }
  std::span<std::byte> BulkOut(const ApiContext&) override { return {}; }
  void ReleaseBulkIn(ApiContext* context) override {
    const MutexLock lock(&mu_);
    ++released_[context->pc];
  }
  void SetSticky(std::int32_t) override {}
  void SetOutput(bool) override {}

  int Replies(std::uint64_t pc) {
    const MutexLock lock(&mu_);
    return replies_[pc];
  }
  int Released(std::uint64_t pc) {
    const MutexLock lock(&mu_);
    return released_[pc];
  }
  std::int32_t Result(std::uint64_t pc) {
    const MutexLock lock(&mu_);
    return results_[pc];
  }
  std::vector<std::uint64_t> Order() {
    const MutexLock lock(&mu_);
    return order_;
  }

 private:
  Mutex mu_;
  std::map<std::uint64_t, int> replies_ POS_GUARDED_BY(mu_);
  std::map<std::uint64_t, int> released_ POS_GUARDED_BY(mu_);
  std::map<std::uint64_t, std::int32_t> results_ POS_GUARDED_BY(mu_);
  std::vector<std::uint64_t> order_ POS_GUARDED_BY(mu_);
};

// Does what the test says, call by call.
class FakeParser : public ApiParser {
 public:
  Outcome Parse(ApiContext* context) override {
    parsed.push_back(context->pc);
    return on_parse ? on_parse(context) : Outcome::kForward;
  }
  void OnNotice(const Notice& notice) override {
    noticed.push_back(notice.what);
  }
  std::function<Outcome(ApiContext*)> on_parse;
  std::vector<std::uint64_t> parsed;
  std::vector<std::uint32_t> noticed;
};

class FakeExecutor : public ApiExecutor {
 public:
  Outcome Execute(ApiContext* context) override {
    executed.push_back(context->pc);
    return on_execute ? on_execute(context) : Outcome::kDone;
  }
  Outcome Complete(ApiContext* context, DeviceError error) override {
    completed.push_back(context->pc);
    context->result = error;
    return on_complete ? on_complete(context) : Outcome::kDone;
  }
  std::function<Outcome(ApiContext*)> on_execute;
  std::function<Outcome(ApiContext*)> on_complete;
  std::vector<std::uint64_t> executed;
  std::vector<std::uint64_t> completed;
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_FAKE_STAGES_H_
