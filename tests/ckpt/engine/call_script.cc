#include "tests/ckpt/engine/call_script.h"

#include <iterator>

namespace pos {
namespace {

constexpr const char* kNames[] = {
    "Alloc",        "AllocAsync",    "Free",         "FreeAsync",
    "Fill",         "CopyIn",        "CopyInStaged", "CopyOut",
    "CopyOutLater", "Copy",          "Launch",       "LaunchSlow",
    "StreamCreate", "StreamDestroy", "StreamSync",   "StreamQuery",
    "EventCreate",  "EventDestroy",  "EventRecord",  "EventWait",
    "EventSync",    "EventQuery",    "EventElapsed", "ModuleLoad",
    "ModuleUnload", "Variable",      "HostAlloc",    "HostFree",
    "HostIn",       "HostOut",       "Mapped",       "Unmapped",
    "CtxSync",      "Info",          "Wrong"};
static_assert(std::size(kNames) == Step::kKinds);

// How often each kind is drawn.
constexpr std::uint8_t kWeights[] = {6, 4, 2, 3, 8, 6, 3, 4, 5, 6, 12, 4,
                                     3, 1, 3, 3, 3, 1, 6, 4, 3, 3, 2,  2,
                                     1, 2, 2, 1, 4, 4, 1, 1, 2, 1, 1};
static_assert(std::size(kWeights) == Step::kKinds);

}  // namespace

Script RandomScript(Random* random, std::size_t steps) {
  std::uint32_t all = 0;
  for (const std::uint8_t weight : kWeights) all += weight;
  Script script;
  while (script.size() < steps) {
    std::uint32_t drawn = random->Below(all);
    int kind = 0;
    while (drawn >= kWeights[kind]) drawn -= kWeights[kind++];
    script.push_back({static_cast<Step::Kind>(kind), random->Below(1000),
                      random->Below(1000),
                      static_cast<std::uint32_t>(random->Next() >> 33)});
  }
  return script;
}

std::string ToText(const Script& script) {
  std::string text;
  for (const Step& step : script) {
    text += std::string("    {Step::k") + kNames[step.kind] + ", " +
            std::to_string(step.a) + ", " + std::to_string(step.b) + ", " +
            std::to_string(step.seed) + "},\n";
  }
  return text;
}

}  // namespace pos
