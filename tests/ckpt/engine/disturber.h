// Cuts a session while a client works: at given calls, with calls pending.
#ifndef POS_TESTS_CKPT_ENGINE_DISTURBER_H_
#define POS_TESTS_CKPT_ENGINE_DISTURBER_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/ckpt/engine/call_script.h"
#include "tests/support/random.h"
#include "tests/support/revived_session.h"

namespace pos {

struct Cut {
  // Before the call of this number (from 1) nothing is handed to the device
  // any more; 0: up to the cut everything is.
  std::uint64_t hold_at = 0;
  // Before this one the session is cut; earlier when the client waits for what
  // is held.
  std::uint64_t cut_at = 0;
  CutMode mode = CutMode::kStop;
  // Recopy: before this one its rounds begin; 0: there are none.
  std::uint64_t rounds_at = 0;
  // The checkpoint fails in the end: the session itself goes on.
  bool give_up = false;
  // The other session runs while its memory is loaded, with this speed.
  std::optional<std::uint64_t> lazily = std::nullopt;
  // What else happens to a session that is copied while it runs.
  std::uint64_t rage = 3;
};

[[nodiscard]] inline CutMode RandomMode(Random* random) {
  return kCutModes[random->Below(std::size(kCutModes))];
}

// `most` cuts of a program of `calls` calls.
[[nodiscard]] inline std::vector<Cut> RandomCuts(Random* random,
                                                 std::uint64_t calls,
                                                 std::uint32_t most) {
  std::vector<Cut> cuts;
  for (std::uint32_t n = 1 + random->Below(most); n != 0; --n) {
    Cut cut;
    cut.cut_at = 1 + random->Below(static_cast<std::uint32_t>(calls));
    if (random->Below(4) != 0) {
      const std::uint64_t lead = 1 + random->Below(30);
      cut.hold_at = cut.cut_at > lead ? cut.cut_at - lead : 1;
    }
    cut.mode = RandomMode(random);
    if (cut.mode == CutMode::kRecopy) {
      const std::uint64_t last = cut.hold_at != 0 ? cut.hold_at : cut.cut_at;
      const std::uint64_t lead = 1 + random->Below(60);
      cut.rounds_at = last > lead ? last - lead : 1;
    }
    cut.give_up = random->Below(5) == 0;
    if (random->Below(2) == 0) cut.lazily = 200'000'000 << random->Below(5);
    cut.rage = random->Next();
    cuts.push_back(cut);
  }
  std::sort(cuts.begin(), cuts.end(),
            [](const Cut& a, const Cut& b) { return a.cut_at < b.cut_at; });
  return cuts;
}

class Disturber {
 public:
  Disturber(RevivedSession* session, std::vector<Cut> cuts)
      : session_(*session), cuts_(std::move(cuts)) {
    session_.client().calling = [this] { OnCall(); };
    session_.client().waiting = [this](ReplyBy by) {
      if (by != ReplyBy::kParser && session_.held()) Make(held_for_);
    };
  }
  ~Disturber() {
    session_.client().calling = nullptr;
    session_.client().waiting = nullptr;
  }
  Disturber(const Disturber&) = delete;
  Disturber& operator=(const Disturber&) = delete;

  [[nodiscard]] std::uint64_t calls() const { return calls_; }
  [[nodiscard]] std::size_t most_pending() const { return most_pending_; }
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  void OnCall() {
    ++calls_;
    for (const Cut& cut : cuts_) {
      if (failed_) return;
      if (calls_ == cut.rounds_at && !session_.held()) session_.BeginRounds();
      if (calls_ == cut.hold_at && !session_.held()) {
        held_for_ = cut;
        session_.Hold();
      }
      if (calls_ == cut.cut_at) Make(cut);
    }
  }
  void Make(const Cut& cut) {
    if (failed_) return;
    session_.LoadLazily(cut.lazily);
    session_.Rage(cut.rage);
    const ::testing::AssertionResult made =
        cut.give_up ? session_.GiveUp(cut.mode) : session_.Revive(cut.mode);
    EXPECT_TRUE(made) << "at call " << calls_;
    failed_ = !made;
    most_pending_ = std::max(most_pending_, session_.pending());
  }

  RevivedSession& session_;
  const std::vector<Cut> cuts_;
  Cut held_for_;
  std::uint64_t calls_ = 0;
  std::size_t most_pending_ = 0;
  bool failed_ = false;
};

// What a run with these cuts looks like to the program.
struct Played {
  std::vector<std::string> log;
  std::uint64_t calls = 0;
  int revivals = 0;
  std::size_t most_pending = 0;
};

inline Played PlayScript(const Script& script, int stage_threads,
                         const std::vector<Cut>& cuts) {
  RevivedSession session(stage_threads);
  Disturber disturber(&session, cuts);
  ScriptPlayer player(&session.client());
  player.Run(script);
  Played played;
  played.log = player.log();
  played.calls = disturber.calls();
  played.revivals = session.revivals();
  played.most_pending = disturber.most_pending();
  session.EndBeside();
  // What is left belongs to nobody: every call was finished once.
  EXPECT_TRUE(session->Quiesce(Deadline::AfterMs(20000)).ok());
  EXPECT_EQ(session->OutstandingContexts(), 0u);
  EXPECT_EQ(session->TakenBytes(0), session.session().ledger().used());
  return played;
}

// The first difference, empty when there is none.
inline std::string Difference(const std::vector<std::string>& want,
                              const std::vector<std::string>& got) {
  for (std::size_t i = 0; i < std::max(want.size(), got.size()); ++i) {
    const std::string w = i < want.size() ? want[i] : "nothing";
    const std::string g = i < got.size() ? got[i] : "nothing";
    if (w != g) {
      return "line " + std::to_string(i) + " of " +
             std::to_string(want.size()) + ": want " + w + ", got " + g;
    }
  }
  return "";
}

}  // namespace pos

#endif  // POS_TESTS_CKPT_ENGINE_DISTURBER_H_
