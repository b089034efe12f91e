#include "conf/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <sstream>

#include "conf/generate.h"
#include "conf/options.h"
#include "pos/base/files.h"

namespace pos::conf {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

Config MustParse(const std::string& text,
                 const std::vector<Override>& overrides = {}) {
  const auto config = Config::Parse(text, "posd.yaml", overrides);
  EXPECT_TRUE(config.ok()) << config.status().ToString();
  return config.ok() ? *config : Config();
}

// The message; "" when the text was taken.
std::string Mistake(const std::string& text,
                    const std::vector<Override>& overrides = {}) {
  const auto config = Config::Parse(text, "posd.yaml", overrides);
  if (config.ok()) return "";
  EXPECT_EQ(config.status().code(), Code::kInvalid);
  return config.status().message();
}

TEST(Config, OfNothingIsTheDefaults) {
  for (const char* text : {"", "\n", "# nothing\n", "---\n", "stop:\n"}) {
    EXPECT_EQ(MustParse(text), Config()) << text;
  }
  const Config config;
  EXPECT_EQ(config.stop_grace_ms(), 10000u);
  EXPECT_EQ(config.ckpt_chunk_bytes(), 2u << 20);
  EXPECT_EQ(config.arena_base(), 0x200000000000u);
  EXPECT_THAT(config.devices(), ElementsAre(DeviceKind::kAuto));
}

TEST(Config, TakesEveryKindOfValue) {
  const Config config = MustParse(R"(
state_dir: /srv/pos
devices: [sim]
log: {level: debug}
sim:
  count: 4
  memory: 2GiB
  copy_bandwidth: 0
  compute_capability: "8.0"
stop:
  grace_ms: 2m
criu:
  dump_timeout_ms: 1500
quiesce:
  backoff_ms: 0s
arena:
  base: 0x7e8000000000
  bytes: 256GiB
ckpt:
  compress: lz4
  incremental: false
)");
  EXPECT_EQ(config.state_dir(), "/srv/pos");
  EXPECT_THAT(config.devices(), ElementsAre(DeviceKind::kSim));
  EXPECT_EQ(config.log_level(), LogLevelChoice::kDebug);
  EXPECT_EQ(config.sim_count(), 4u);
  EXPECT_EQ(config.sim_memory_bytes(), 2 * kGiB);
  EXPECT_EQ(config.sim_copy_bandwidth(), 0u);
  EXPECT_EQ(config.sim_compute_capability(), "8.0");
  EXPECT_EQ(config.stop_grace_ms(), 120000u);
  EXPECT_EQ(config.criu_dump_timeout_ms(), 1500u);
  EXPECT_EQ(config.quiesce_backoff_ms(), 0u);
  EXPECT_EQ(config.arena_base(), 0x7e8000000000u);
  EXPECT_EQ(config.ckpt_compress(), CompressChoice::kLz4);
  EXPECT_FALSE(config.ckpt_incremental());
}

TEST(Config, MistakesComeWithLineColumnAndTheNearestName) {
  EXPECT_EQ(Mistake("stpo:\n  grace_ms: 1s\n"),
            "posd.yaml:1:1: there is no option 'stpo'; did you mean "
            "'stop'?");
  EXPECT_EQ(Mistake("stop:\n  grcae_ms: 1s\n"),
            "posd.yaml:2:3: there is no option 'stop.grcae_ms'; did you "
            "mean 'stop.grace_ms'?");
  // The right word in the wrong place.
  EXPECT_THAT(Mistake("grace_ms: 1s\n"),
              HasSubstr("did you mean 'stop.grace_ms'?"));
  EXPECT_THAT(Mistake("ckpt:\n  dump_timeout_ms: 1s\n"),
              HasSubstr("did you mean 'criu.dump_timeout_ms'?"));
  EXPECT_THAT(Mistake("statedir: /x\n"), HasSubstr("'state_dir'?"));
  EXPECT_EQ(Mistake("xyzzy: 1\n"), "posd.yaml:1:1: there is no option 'xyzzy'");
  EXPECT_THAT(
      Mistake("a: 1\n\nring:\n  bytes: 3MiB\n"),
      HasSubstr("posd.yaml:4:10: 'ring.bytes' must be 256KiB to 256MiB, "
                "a power of two, not 3MiB"));
}

TEST(Config, AllMistakesAreNamedAtOnce) {
  const std::string message = Mistake(
      "ring:\n  bytes: big\nquiesce:\n  retries: -1\n  drain: 5s\nx: 1\n");
  EXPECT_THAT(message, HasSubstr("posd.yaml:2:10: "));
  EXPECT_THAT(message, HasSubstr("posd.yaml:4:12: "));
  EXPECT_THAT(message, HasSubstr("'quiesce.drain_ms'?"));
  EXPECT_THAT(message, HasSubstr("posd.yaml:6:1: "));
  std::string many;
  for (int i = 0; i < 50; ++i) many += "k" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(Mistake(many), HasSubstr("… and 30 more"));
}

TEST(Config, ValuesOfAnotherTypeAreRefused) {
  for (const char* text : {
           "sim:\n  count: many\n",
           "sim:\n  count: 1.5\n",
           "sim:\n  count: -1\n",
           "sim:\n  count: 0\n",
           "sim:\n  count: 65\n",
           "sim:\n  count: 99999999999999999999\n",
           "sim:\n  count: [1]\n",
           "sim:\n  count: {a: 1}\n",
           "sim:\n  count:\n",
           "sim:\n  count: ~\n",
           "sim: 4\n",
           "sim: [4]\n",
           "- sim\n",
           "sim\n",
           "ckpt:\n  incremental: yes\n",
           "ckpt:\n  incremental: \"true\"\n",
           "ckpt:\n  incremental: 1\n",
           "ckpt:\n  compress: gzip\n",
           "ckpt:\n  compress: ZSTD\n",
           "stop:\n  grace_ms: 5 weeks\n",
           "stop:\n  grace_ms: 1.5s\n",
           "stop:\n  grace_ms: 2d\n",
           "stop:\n  grace_ms: 30s 1\n",  // of what?
           "ring:\n  bytes: 1MB\n",
           "ring:\n  bytes: 1 mib\n",
           "arena:\n  base: 0x200000000001\n",
           "arena:\n  base: 2TiB\n",
           "devices: []\n",
           "devices: [gpu]\n",
           "devices: [sim, sim]\n",
           "devices: [[sim]]\n",
           "devices: {sim: 1}\n",
           "log:\n  level: info\nlog:\n  level: debug\n",
           "? [a, b]\n: 1\n",
           "\"\": 1\n",
       }) {
    EXPECT_THAT(Mistake(text), StartsWith("posd.yaml:")) << text;
  }
}

TEST(Config, WhatIsNotYamlIsRefusedWithItsPlace) {
  EXPECT_THAT(Mistake("log: {level: info\n"), StartsWith("posd.yaml:2:1: "));
  EXPECT_THAT(Mistake("log:\n\tlevel: info\n"), StartsWith("posd.yaml:"));
  EXPECT_THAT(Mistake("a: 1\n---\nb: 2\n"), HasSubstr("second document"));
  EXPECT_THAT(Mistake(","), HasSubstr("second document"));
  EXPECT_THAT(Mistake("log: *nobody\n"), StartsWith("posd.yaml:1:"));
  EXPECT_THAT(Mistake("log: &x\n  level: *x\n"),
              StartsWith("posd.yaml:2:10: aliases"));
  EXPECT_THAT(Mistake(std::string(10000, '[')), StartsWith("posd.yaml:"));
  EXPECT_THAT(Mistake(std::string(kMaxConfigBytes + 1, '#')),
              HasSubstr("at most"));
}

TEST(Config, CombinationsThatMakeNoSenseAreRefused) {
  EXPECT_THAT(Mistake("devices: [auto, sim]\n"),
              HasSubstr("posd.yaml:1:1: 'devices' auto stands alone"));
  EXPECT_THAT(Mistake("host_window:\n  base: 0x210000000000\n"),
              HasSubstr("posd.yaml:2:3: 'host_window.base' the window overlaps "
                        "the arena, 0x200000000000 to 0x240000000000"));
  EXPECT_THAT(Mistake("arena:\n  base: 0x7e8000000000\n"),
              HasSubstr("'arena.bytes' the arena ends above"));
  EXPECT_THAT(Mistake("sim:\n  compute_capability: nine\n"),
              HasSubstr("major.minor"));
  EXPECT_THAT(Mistake("state_dir: pos\n"), HasSubstr("absolute"));
  EXPECT_THAT(Mistake("socket: /" + std::string(107, 's') + "\n"),
              HasSubstr("108 characters"));
  EXPECT_EQ(Mistake("socket: /" + std::string(106, 's') + "\n"), "");
}

TEST(Config, TheCommandLineWins) {
  const Config config = MustParse(
      "sim:\n  count: 4\n",
      {{"sim.count", "2"}, {"stop.grace_ms", "1s"}, {"devices", "sim"}});
  EXPECT_EQ(config.sim_count(), 2u);
  EXPECT_EQ(config.stop_grace_ms(), 1000u);
  EXPECT_THAT(config.devices(), ElementsAre(DeviceKind::kSim));
  EXPECT_EQ(Mistake("", {{"sim.count", "x"}}),
            "command line: 'sim.count' must be a whole number, not 'x'");
  EXPECT_THAT(Mistake("", {{"sim.cout", "1"}}), HasSubstr("'sim.count'?"));
  EXPECT_NE(Mistake("", {{"devices", "sim,"}}), "");
}

TEST(Config, ReloadIsAllOrNothing) {
  const Config now = MustParse("stop:\n  grace_ms: 1s\n");
  EXPECT_TRUE(now.CheckReload(now).ok());
  const Config later = MustParse("stop:\n  grace_ms: 2s\n");
  EXPECT_TRUE(now.CheckReload(later).ok());
  EXPECT_THAT(now.Changed(later), ElementsAre("stop.grace_ms"));
  const Config other = MustParse("sim:\n  count: 2\nstate_dir: /x\n");
  const Status status = now.CheckReload(other);
  EXPECT_EQ(status.code(), Code::kInvalid);
  EXPECT_THAT(status.message(), HasSubstr("state_dir, sim.count"));
}

TEST(Config, WrittenOutReadsAsTheSame) {
  EXPECT_EQ(MustParse(Config().ToYaml()), Config());
  const Config config = MustParse(
      "state_dir: \"/a \\\"b\\\" #c\\n: \\x01\"\nsocket: \"/true\"\n"
      "sim:\n  memory: 66MiB\ncriu:\n  path: \"0\"\nstop:\n  grace_ms: "
      "1001ms\n");
  EXPECT_EQ(MustParse(config.ToYaml()), config);
}

TEST(Config, LoadNamesTheFile) {
  EXPECT_EQ(Config::Load("/nonexistent/posd.yaml").status().code(),
            Code::kNoSuch);
}

// --- The table ---

TEST(Options, HaveDistinctNamesInTheirGroupsAndFullHelp) {
  std::set<std::string_view> names;
  std::set<std::string_view> prefixes;
  for (const Group& group : Groups()) {
    EXPECT_TRUE(prefixes.insert(group.prefix).second) << group.prefix;
    EXPECT_FALSE(group.options.empty()) << group.prefix;
    EXPECT_TRUE(group.help.ends_with('.')) << group.prefix;
    for (const Option& option : group.options) {
      EXPECT_TRUE(names.insert(option.name).second) << option.name;
      EXPECT_TRUE(option.help.ends_with('.')) << option.name;
      const std::size_t dot = option.name.rfind('.');
      EXPECT_EQ(option.name.substr(0, dot == std::string_view::npos ? 0 : dot),
                group.prefix)
          << option.name;
      EXPECT_EQ(FindOption(option.name), &option);
    }
  }
  EXPECT_GT(names.size(), 20u);
}

TEST(Options, DefaultsAreAllowedValues) {
  for (const Group& group : Groups()) {
    for (const Option& option : group.options) {
      const std::string name(option.name);
      const std::size_t dot = name.find('.');
      const std::string text = dot == std::string::npos
                                   ? name + ": " + option.default_value + "\n"
                                   : name.substr(0, dot) + ":\n  " +
                                         name.substr(dot + 1) + ": " +
                                         option.default_value + "\n";
      EXPECT_EQ(MustParse(text), Config()) << text;
    }
  }
}

std::string Committed(const std::string& name) {
  const auto text = ReadWholeFile(std::string(POS_SOURCE_DIR) + "/" + name);
  EXPECT_TRUE(text.ok()) << text.status().ToString();
  return text.ok() ? *text : "";
}

TEST(Generated, FilesAreUpToDate) {
  EXPECT_EQ(Committed("conf/posd.yaml"), SampleYaml())
      << "run: build/bin/pos-conf sample >conf/posd.yaml";
  EXPECT_EQ(Committed("docs/configuration.md"), ReferencePage())
      << "run: build/bin/pos-conf reference >docs/configuration.md";
}

TEST(Generated, TheSampleWithEverythingSwitchedOnIsTheDefaults) {
  std::istringstream lines(SampleYaml());
  std::string text;
  std::size_t options = 0;
  for (std::string line; std::getline(lines, line);) {
    // "#  name: value", "#group:"; anything else explains.
    const std::size_t name = line.find_first_not_of(" ", 1);
    const std::size_t colon = line.find(':');
    if (!line.starts_with('#') || name > colon || colon == std::string::npos ||
        line.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", name) != colon) {
      continue;
    }
    if (name == 2) continue;  // "# auto: ..." in a wrapped text
    text += line.substr(1) + "\n";
    ++options;
  }
  EXPECT_GT(options, 30u);
  EXPECT_EQ(MustParse(text), Config());
  EXPECT_EQ(MustParse(SampleYaml()), Config());
}

// --- Units ---

TEST(Units, ParseWhatTheyFormat) {
  EXPECT_EQ(ParseBytes("64MiB"), 64 * kMiB);
  EXPECT_EQ(ParseBytes("1 GiB"), kGiB);
  EXPECT_EQ(ParseBytes("3kB"), 3000u);
  EXPECT_EQ(ParseBytes("7"), 7u);
  EXPECT_EQ(ParseBytes("7B"), 7u);
  EXPECT_EQ(ParseTimeMs("90s"), 90000u);
  EXPECT_EQ(ParseTimeMs("5m"), 300000u);
  for (const char* bad : {"", "MiB", "-1MiB", "1.5GiB", "64 mib", "1MiBs",
                          "16777216TiB", "0x10MiB", "1e3"}) {
    EXPECT_EQ(ParseBytes(bad), std::nullopt) << bad;
  }
  for (const char* bad : {"", "30", "s", "1.5s", "5 sec", "-1s"}) {
    EXPECT_EQ(ParseTimeMs(bad), std::nullopt) << bad;
  }
  for (const std::uint64_t n :
       {0ull, 1ull, 1023ull, 1024ull, 1025ull, 3ull << 20, 5ull << 40, ~0ull}) {
    EXPECT_EQ(ParseBytes(FormatBytes(n)), n);
    EXPECT_EQ(ParseNumber(FormatAddress(n)), n);
  }
  for (const std::uint64_t ms : {0ull, 1ull, 999ull, 1000ull, 60000ull,
                                 90000ull, 3600000ull, 86400000ull}) {
    EXPECT_EQ(ParseTimeMs(FormatTimeMs(ms)), ms);
  }
  EXPECT_EQ(ParseNumber("18446744073709551616"), std::nullopt);
  EXPECT_EQ(ParseNumber("0x"), std::nullopt);
  EXPECT_EQ(ParseNumber("+1"), std::nullopt);
}

}  // namespace
}  // namespace pos::conf
