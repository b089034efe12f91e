#include "pos/cli/options.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cstdlib>

namespace pos::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

Options Parsed(const Words& words) {
  const Result<ParsedCommandLine> parsed = ParseCommandLine(words);
  EXPECT_TRUE(parsed.ok()) << parsed.status().ToString();
  if (!parsed.ok()) return {};
  EXPECT_FALSE(parsed->answer.has_value());
  return parsed->options;
}

Status Refused(const Words& words) {
  const Result<ParsedCommandLine> parsed = ParseCommandLine(words);
  EXPECT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.status().code(), Code::kInvalid);
  EXPECT_FALSE(parsed.status().hint().empty());
  return parsed.status();
}

TEST(ParseCommandLine, KnowsEveryCommand) {
  EXPECT_EQ(Parsed({"ps"}).command, Command::kPs);
  EXPECT_EQ(Parsed({"logs", "j"}).command, Command::kLogs);
  EXPECT_EQ(Parsed({"wait", "j"}).command, Command::kWait);
  EXPECT_EQ(Parsed({"stop", "j"}).command, Command::kStop);
  EXPECT_EQ(Parsed({"devices"}).command, Command::kDevices);
  EXPECT_EQ(Parsed({"check"}).command, Command::kCheck);
  EXPECT_EQ(Parsed({"checkpoint", "j"}).command, Command::kCheckpoint);
  EXPECT_EQ(Parsed({"restore", "i"}).command, Command::kRestore);
  EXPECT_FALSE(Parsed({"restore", "i"}).lazy);
  EXPECT_TRUE(Parsed({"restore", "i", "--lazy"}).lazy);
  EXPECT_EQ(Parsed({"images", "ls"}).command, Command::kImagesList);
  EXPECT_EQ(Parsed({"images", "show", "i"}).command, Command::kImagesShow);
  EXPECT_EQ(Parsed({"images", "verify", "i"}).command, Command::kImagesVerify);
  EXPECT_EQ(Parsed({"images", "rm", "i"}).command, Command::kImagesRemove);
  EXPECT_EQ(Parsed({"images", "gc"}).command, Command::kImagesGc);
  const Options diff = Parsed({"images", "diff", "a", "b"});
  EXPECT_EQ(diff.command, Command::kImagesDiff);
  EXPECT_EQ(diff.target, "a");
  EXPECT_EQ(diff.target_b, "b");
  const Options exported = Parsed({"images", "export", "i", "f"});
  EXPECT_EQ(exported.command, Command::kImagesExport);
  EXPECT_EQ(exported.target, "i");
  EXPECT_EQ(exported.file, "f");
  const Options imported = Parsed({"images", "import", "-"});
  EXPECT_EQ(imported.command, Command::kImagesImport);
  EXPECT_EQ(imported.file, "-");
}

TEST(ParseCommandLine, WhatFollowsTheDashesIsTheCommandAsItIs) {
  const Options options =
      Parsed({"run", "--name", "n", "--device=0,1", "-d", "--", "python3", "-c",
              "", "--json", "--", "ps", "++"});
  EXPECT_EQ(options.command, Command::kRun);
  EXPECT_EQ(options.name, "n");
  EXPECT_EQ(options.device, "0,1");
  EXPECT_TRUE(options.detach);
  EXPECT_FALSE(options.json);
  EXPECT_THAT(options.argv,
              ElementsAre("python3", "-c", "", "--json", "--", "ps", "++"));
  EXPECT_THAT(Parsed({"run", "--", "-x"}).argv, ElementsAre("-x"));
}

TEST(ParseCommandLine, TheDashesMayBeLeftOut) {
  const Options options = Parsed({"run", "-d", "ps", "--name", "a", "-d"});
  EXPECT_THAT(options.argv, ElementsAre("ps", "--name", "a", "-d"));
  EXPECT_TRUE(options.name.empty());
}

TEST(ParseCommandLine, RunNeedsAProgram) {
  EXPECT_EQ(Refused({"run"}).message(), "no program is named");
  EXPECT_EQ(Refused({"run", "--"}).message(), "no program is named");
  EXPECT_EQ(Refused({"run", "--", ""}).message(), "no program is named");
  EXPECT_THAT(Refused({"run", "--bad", "--", "a"}).message(),
              HasSubstr("--bad"));
  EXPECT_THAT(Refused({"run", "-x", "a"}).message(), HasSubstr("-x"));
  EXPECT_THAT(Refused({"run", "a", "--", "b"}).message(), HasSubstr("'a'"));
}

TEST(ParseCommandLine, CommonOptionsStandAnywhere) {
  EXPECT_TRUE(Parsed({"--json", "ps"}).json);
  EXPECT_TRUE(Parsed({"ps", "--json"}).json);
  EXPECT_TRUE(Parsed({"images", "--json", "ls"}).json);
  EXPECT_EQ(Parsed({"--socket", "/a", "images", "ls"}).socket, "/a");
  EXPECT_EQ(Parsed({"images", "ls", "--socket=/a"}).socket, "/a");
}

TEST(ParseCommandLine, TheSocketComesFromTheNearestPlace) {
  ::setenv("POS_SOCKET", "/from/environment", 1);
  EXPECT_EQ(Parsed({"ps"}).socket, "/from/environment");
  EXPECT_EQ(Parsed({"ps", "--socket", "/given"}).socket, "/given");
  ::setenv("POS_SOCKET", "", 1);
  EXPECT_THAT(Parsed({"ps"}).socket, HasSubstr("pos/posd.sock"));
  ::unsetenv("POS_SOCKET");
  EXPECT_THAT(Parsed({"ps"}).socket, HasSubstr("pos/posd.sock"));
}

TEST(ParseCommandLine, CheckpointHasItsDefaults) {
  const Options plain = Parsed({"checkpoint", "j"});
  EXPECT_EQ(plain.target, "j");
  EXPECT_EQ(plain.mode, "auto");
  EXPECT_FALSE(plain.stop);
  const Options all =
      Parsed({"checkpoint", "j", "--mode", "stop", "--stop", "--tag", "t"});
  EXPECT_EQ(all.mode, "stop");
  EXPECT_TRUE(all.stop);
  EXPECT_EQ(all.tag, "t");
}

TEST(ParseCommandLine, RestoreUnderstandsFiles) {
  EXPECT_EQ(Parsed({"restore", "i"}).files, FilePolicy::kTruncate);
  EXPECT_EQ(Parsed({"restore", "i", "--files", "truncate"}).files,
            FilePolicy::kTruncate);
  EXPECT_EQ(Parsed({"restore", "i", "--files", "keep"}).files,
            FilePolicy::kKeep);
  const Options absolute = Parsed({"restore", "i", "--files", "copy=/a/../b"});
  EXPECT_EQ(absolute.files, FilePolicy::kCopy);
  EXPECT_EQ(absolute.copy_directory, "/b");
  ASSERT_EQ(::chdir("/tmp"), 0);
  EXPECT_EQ(Parsed({"restore", "i", "--files", "copy=b"}).copy_directory,
            "/tmp/b");
  EXPECT_EQ(Parsed({"restore", "i", "--files", "copy"}).copy_directory,
            "/tmp/i-files");
  for (const char* files : {"copy=", "copies", "keep=/a", ""}) {
    EXPECT_THAT(Refused({"restore", "i", "--files", files}).hint(),
                HasSubstr("copy=DIR"));
  }
}

TEST(ParseCommandLine, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(Refused({}).hint(), HasSubstr("pos-cli --help"));
  EXPECT_THAT(Refused({"sotp", "j"}).message(), HasSubstr("'sotp'"));
  EXPECT_THAT(Refused({"sotp", "j"}).hint(), HasSubstr("stop"));
  EXPECT_THAT(Refused({"images"}).hint(), HasSubstr("pos-cli images --help"));
  EXPECT_THAT(Refused({"images", "lst"}).hint(), HasSubstr("ls"));
  EXPECT_THAT(Refused({"logs"}).hint(), HasSubstr("pos-cli logs --help"));
  EXPECT_THAT(Refused({"ps", "extra"}).message(), HasSubstr("extra"));
  EXPECT_THAT(Refused({"ps", "--extra"}).message(), HasSubstr("--extra"));
  EXPECT_THAT(Refused({"ps", "--", "x"}).message(), HasSubstr("run"));
}

TEST(ParseCommandLine, EveryIsATime) {
  EXPECT_EQ(Parsed({"checkpoint", "j"}).every_ms, std::nullopt);
  EXPECT_EQ(Parsed({"checkpoint", "j", "--every", "30s"}).every_ms, 30000u);
  EXPECT_EQ(Parsed({"checkpoint", "j", "--every", "0"}).every_ms, 0u);
  EXPECT_EQ(Parsed({"checkpoint", "j", "--every", "2h", "--keep", "3"}).keep,
            3u);
  for (const char* text : {"soon", "-1s", "1.5h", "9999999d", "30"}) {
    EXPECT_THAT(Refused({"checkpoint", "j", "--every", text}).message(),
                HasSubstr("--every"));
  }
  EXPECT_FALSE(Refused({"checkpoint", "j", "--keep", "3"}).message().empty());
  EXPECT_FALSE(Refused({"checkpoint", "j", "--every", "1m", "--stop"})
                   .message()
                   .empty());
  EXPECT_FALSE(Refused({"checkpoint", "j", "--every", "1m", "--trace", "f"})
                   .message()
                   .empty());
  EXPECT_EQ(Parsed({"checkpoint", "j", "--trace", "f"}).trace, "f");
  EXPECT_EQ(Parsed({"restore", "i", "--trace", "f"}).trace, "f");
}

// Commands and options of later versions are not there yet.
TEST(ParseCommandLine, PromisesNothingThatIsNotThere) {
  for (const Words& words :
       {Words{"top"}, Words{"trace", "j"}, Words{"migrate", "j"},
        Words{"images", "export", "i"}, Words{"images", "diff", "i"},
        Words{"run", "--host", "h:1", "--", "a"}}) {
    EXPECT_FALSE(Refused(words).message().empty());
  }
}

TEST(ParseCommandLine, EveryHelpHasAnExample) {
  for (const Words& words :
       {Words{}, Words{"run"}, Words{"ps"}, Words{"logs"}, Words{"wait"},
        Words{"stop"}, Words{"devices"}, Words{"check"}, Words{"checkpoint"},
        Words{"restore"}, Words{"images"}, Words{"images", "ls"},
        Words{"images", "show"}, Words{"images", "verify"},
        Words{"images", "rm"}, Words{"images", "diff"}, Words{"images", "gc"},
        Words{"images", "export"}, Words{"images", "import"}}) {
    Words asked = words;
    asked.push_back("--help");
    const Result<ParsedCommandLine> parsed = ParseCommandLine(asked);
    ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
    ASSERT_TRUE(parsed->answer.has_value());
    std::string name = "pos-cli";
    for (const std::string& word : words) name += " " + word;
    EXPECT_THAT(*parsed->answer, HasSubstr("Usage: " + name + " "));
    EXPECT_THAT(*parsed->answer, HasSubstr("--json"));
    EXPECT_THAT(*parsed->answer, HasSubstr("\nExample:\n  " + name));
  }
}

TEST(ParseCommandLine, TellsItsVersion) {
  const Result<ParsedCommandLine> parsed = ParseCommandLine({"--version"});
  ASSERT_TRUE(parsed.ok());
  EXPECT_THAT(*parsed->answer, ::testing::StartsWith("pos-cli "));
}

TEST(WantsJson, LooksBeforeTheCommandOnly) {
  EXPECT_TRUE(WantsJson({"nonsense", "--json"}));
  EXPECT_FALSE(WantsJson({"run", "--", "a", "--json"}));
  EXPECT_FALSE(WantsJson({}));
}

}  // namespace
}  // namespace pos::cli
