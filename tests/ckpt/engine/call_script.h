// Random programs for a session: steps that mean something whatever was left
// out before them, and a player that carries them out and writes down what a
// program could see.
//
// What a step names is taken modulo what there is, and what it would need and
// is not there makes it a step that does nothing. So any part of a script is a
// script, which is all that shrinking needs. The player orders accesses to one
// piece of memory by events or by waiting, so a script has one outcome, however
// its streams run.
//
// Threads: one.
#ifndef POS_TESTS_CKPT_ENGINE_CALL_SCRIPT_H_
#define POS_TESTS_CKPT_ENGINE_CALL_SCRIPT_H_

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "tests/support/random.h"
#include "tests/support/session_client.h"

namespace pos {

struct Step {
  enum Kind : std::uint8_t {
    kAlloc,
    kAllocAsync,
    kFree,
    kFreeAsync,
    kFill,
    kCopyIn,
    kCopyInStaged,
    kCopyOut,
    kCopyOutLater,
    kCopy,
    kLaunch,
    kLaunchSlow,
    kStreamCreate,
    kStreamDestroy,
    kStreamSync,
    kStreamQuery,
    kEventCreate,
    kEventDestroy,
    kEventRecord,
    kEventWait,
    kEventSync,
    kEventQuery,
    kEventElapsed,
    kModuleLoad,
    kModuleUnload,
    kVariable,
    kHostAlloc,
    kHostFree,
    kHostIn,
    kHostOut,
    kMapped,
    kUnmapped,
    kCtxSync,
    kInfo,
    kWrong,
    kKinds,
  };
  Kind kind = kCtxSync;
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint32_t seed = 0;
};
using Script = std::vector<Step>;

[[nodiscard]] Script RandomScript(Random* random, std::size_t steps);
[[nodiscard]] std::string ToText(const Script& script);

class ScriptPlayer {
 public:
  explicit ScriptPlayer(SessionClient* client) : client_(*client) {}

  void Begin();
  void Play(const Step& step);
  // Waits for everything; all that memory and events hold goes to the log.
  void End();
  // All of it.
  void Run(const Script& script) {
    Begin();
    for (const Step& step : script) Play(step);
    End();
  }
  [[nodiscard]] const std::vector<std::string>& log() const { return log_; }

 private:
  static constexpr std::uint64_t kNobody = 0;
  // Memory that work of streams touches: whose work it was last.
  struct Memory {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
    std::uint64_t owner = kNobody;  // stream
    std::uint64_t physical = 0;     // not 0: mapped by hand
  };
  struct Event {
    std::uint64_t id = 0;
    bool recorded = false;
  };
  struct Module {
    std::uint64_t id = 0;
    std::uint64_t mix = 0;
    std::uint64_t slow = 0;
    Memory variable;
  };
  struct Answer {  // under way
    std::uint32_t slot = 0;
    std::uint32_t lease = wire::kNoLease;
    std::uint64_t bytes = 0;
  };

  void PlayMemory(const Step& step);
  void PlayCopies(const Step& step);
  void PlayStreams(const Step& step);
  void PlayEvents(const Step& step);
  void PlayCode(const Step& step);
  void PlayHost(const Step& step);
  void PlayWrong(const Step& step);

  std::uint64_t StreamOf(std::uint32_t n) const {
    return streams_[n % streams_.size()];
  }
  Memory* BufferOf(std::uint32_t n) {
    return buffers_.empty() ? nullptr : &buffers_[n % buffers_.size()];
  }
  // Work of `stream` may touch it from here on. `wait`: rather than by event.
  void Use(Memory* memory, std::uint64_t stream, bool wait);
  void Settle(Memory* memory);
  void AddBuffer(std::uint64_t address, std::uint64_t bytes, const Step& step);
  void FillAll(Memory* memory, std::uint64_t stream, std::uint32_t value);
  void Fetch(const Answer& answer);
  Answer AskFor(std::uint64_t stream, std::uint64_t address,
                std::uint64_t bytes);
  void AddMapped(const Step& step);
  void DropMapped(std::size_t place);
  void LoadModule(const Step& step);
  void Launch(const Step& step);
  void Log(const std::string& what, std::int64_t value);

  SessionClient& client_;
  SessionClient::Context context_;
  std::uint64_t bridge_ = 0;  // event
  std::vector<std::uint64_t> streams_;
  std::vector<Memory> buffers_;
  std::vector<Memory> hosts_;
  std::vector<Event> events_;
  std::vector<Module> modules_;
  std::deque<Answer> answers_;
  std::vector<std::string> log_;
};

}  // namespace pos

#endif  // POS_TESTS_CKPT_ENGINE_CALL_SCRIPT_H_
