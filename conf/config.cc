#include "conf/config.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <exception>
#include <optional>
#include <sstream>

#include "conf/options.h"
#include "conf/rules.h"
#include "pos/base/files.h"

namespace pos::conf {
namespace {

constexpr std::size_t kMaxMistakes = 20;

// Where in the file something is; counted from 1.
std::string Place(const std::string& file, const YAML::Mark& mark) {
  if (mark.is_null()) return file;
  return file + ":" + std::to_string(mark.line + 1) + ":" +
         std::to_string(mark.column + 1);
}

// Looks at the text before it becomes nodes: aliases can make cycles, which
// yaml-cpp never frees, and depth costs stack.
class Gatekeeper final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    // Also what ends yaml-cpp 0.7 on "," at a document's start, which it never
    // gets past.
    if (++documents_ > 1) {
      throw YAML::ParserException(mark,
                                  "a second document; a configuration is one");
    }
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw YAML::ParserException(mark, "aliases are not for configurations");
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&,
                       YAML::anchor_t, YAML::EmitterStyle::value) override {
    Enter(mark);
  }
  void OnSequenceEnd() override { --depth_; }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    Enter(mark);
  }
  void OnMapEnd() override { --depth_; }

 private:
  static constexpr int kMaxDepth = 8;  // options need 3

  void Enter(const YAML::Mark& mark) {
    if (++depth_ > kMaxDepth) {
      throw YAML::ParserException(mark, "too many levels");
    }
  }

  int depth_ = 0;
  int documents_ = 0;
};

// Turns a file and overrides into Values, collecting mistakes.
class Loader {
 public:
  explicit Loader(std::string file) : file_(std::move(file)) {}

  void TakeDocument(const YAML::Node& root);
  void TakeOverride(const Override& override);
  Result<Values> Finish();

 private:
  void TakeMap(const YAML::Node& map, const std::string& prefix);
  void TakeOption(const Option& option, const YAML::Node& node,
                  const std::string& place);
  std::optional<Given> Read(const Option& option, const YAML::Node& node,
                            const std::string& place);
  void Unknown(const std::string& name, const std::string& place);
  void Mistake(const std::string& place, const std::string& what);

  const std::string file_;
  Values values_;
  std::map<std::string_view, std::string> given_;  // option -> place
  std::vector<std::string> mistakes_;
};

void Loader::Mistake(const std::string& place, const std::string& what) {
  mistakes_.push_back(place + ": " + what);
}

void Loader::Unknown(const std::string& name, const std::string& place) {
  const std::string_view nearest = NearestName(name);
  Mistake(place, "there is no option '" + name + "'" +
                     (nearest.empty()
                          ? ""
                          : "; did you mean '" + std::string(nearest) + "'?"));
}

void Loader::TakeDocument(const YAML::Node& root) {
  if (root.IsNull()) return;  // an empty file: all defaults
  if (!root.IsMap()) {
    Mistake(Place(file_, root.Mark()), "options are lines of NAME: VALUE");
    return;
  }
  TakeMap(root, "");
}

void Loader::TakeMap(const YAML::Node& map, const std::string& prefix) {
  std::set<std::string> seen;
  for (const auto& entry : map) {
    const std::string place = Place(file_, entry.first.Mark());
    if (!entry.first.IsScalar()) {
      Mistake(place, "a name was expected");
      continue;
    }
    const std::string name = prefix + entry.first.Scalar();
    if (!seen.insert(name).second) {
      Mistake(place, "'" + name + "' is there twice");
      continue;
    }
    const Option* const option = FindOption(name);
    if (option != nullptr) {
      TakeOption(*option, entry.second, place);
      continue;
    }
    bool group = false;
    for (const Group& known : Groups()) group |= known.prefix == name;
    if (!group || name.empty()) {
      Unknown(name, place);
    } else if (entry.second.IsMap()) {
      TakeMap(entry.second, name + ".");
    } else if (!entry.second.IsNull()) {
      Mistake(place, "'" + name +
                         "' is a group: its options are indented lines "
                         "below it");
    }
  }
}

std::optional<Given> Loader::Read(const Option& option, const YAML::Node& node,
                                  const std::string& place) {
  const std::string name(option.name);
  Given given;
  if (node.IsScalar()) {
    given.scalar = node.Scalar();
    given.quoted = node.Tag() == "!";
    return given;
  }
  if (node.IsSequence()) {
    given.shape = Given::Shape::kList;
    for (const YAML::Node& item : node) {
      if (!item.IsScalar()) {
        Mistake(Place(file_, item.Mark()),
                "'" + name + "' lists single values");
        return std::nullopt;
      }
      given.list.push_back(item.Scalar());
    }
    return given;
  }
  if (!node.IsMap()) {
    Mistake(place, "'" + name + "' has no value");
    return std::nullopt;
  }
  given.shape = Given::Shape::kGroup;
  return given;
}

void Loader::TakeOption(const Option& option, const YAML::Node& node,
                        const std::string& place) {
  const std::optional<Given> given = Read(option, node, place);
  if (!given.has_value()) return;
  const std::string wrong = option.set(&values_, *given);
  if (wrong.empty()) {
    given_[option.name] = place;
  } else {
    Mistake(node.Mark().is_null() ? place : Place(file_, node.Mark()),
            "'" + std::string(option.name) + "' " + wrong);
  }
}

void Loader::TakeOverride(const Override& override) {
  const std::string place = "command line";
  const Option* const option = FindOption(override.first);
  if (option == nullptr) {
    Unknown(override.first, place);
    return;
  }
  Given given;
  given.scalar = override.second;
  if (option->type == "list of words") {
    given.shape = Given::Shape::kList;
    std::string_view rest = override.second;
    for (std::size_t comma = 0; comma != std::string_view::npos;) {
      comma = rest.find(',');
      given.list.emplace_back(rest.substr(0, comma));
      if (comma != std::string_view::npos) rest.remove_prefix(comma + 1);
    }
  }
  const std::string wrong = option->set(&values_, given);
  if (wrong.empty()) {
    given_[option->name] = place;
  } else {
    Mistake(place, "'" + override.first + "' " + wrong);
  }
}

Result<Values> Loader::Finish() {
  if (mistakes_.empty()) {
    CheckRules(values_,
               [this](std::string_view option, const std::string& why) {
                 const auto at = given_.find(option);
                 Mistake(at == given_.end() ? file_ : at->second,
                         "'" + std::string(option) + "' " + why);
               });
  }
  if (mistakes_.empty()) return std::move(values_);
  std::string message;
  for (std::size_t i = 0; i < mistakes_.size() && i < kMaxMistakes; ++i) {
    message += (i == 0 ? "" : "\n") + mistakes_[i];
  }
  if (mistakes_.size() > kMaxMistakes) {
    message +=
        "\n… and " + std::to_string(mistakes_.size() - kMaxMistakes) + " more";
  }
  return Invalid(message, "the options are described in docs/configuration.md");
}

}  // namespace

Result<Config> Config::Parse(std::string_view text, const std::string& file,
                             const std::vector<Override>& overrides) {
  if (text.size() > kMaxConfigBytes) {
    return Invalid(file + ": a configuration has at most " +
                   std::to_string(kMaxConfigBytes) + " bytes");
  }
  Loader loader(file);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Gatekeeper gatekeeper;
    while (parser.HandleNextDocument(gatekeeper)) {
    }
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (!documents.empty()) loader.TakeDocument(documents[0]);
  } catch (const YAML::Exception& error) {
    return Invalid(Place(file, error.mark) + ": " + error.msg);
  } catch (const std::exception& error) {
    return Invalid(file + ": " + error.what());
  }
  for (const Override& override : overrides) loader.TakeOverride(override);
  POS_ASSIGN_OR_RETURN(Values values, loader.Finish());
  return Config(std::move(values));
}

Result<Config> Config::Load(const std::string& path,
                            const std::vector<Override>& overrides) {
  POS_ASSIGN_OR_RETURN(const std::string text,
                       ReadWholeFile(path, kMaxConfigBytes));
  return Parse(text, path, overrides);
}

std::vector<std::string> Config::Changed(const Config& next) const {
  std::vector<std::string> names;
  for (const Group& group : Groups()) {
    for (const Option& option : group.options) {
      if (option.get(values_) != option.get(next.values_)) {
        names.emplace_back(option.name);
      }
    }
  }
  return names;
}

Status Config::CheckReload(const Config& next) const {
  std::string fixed;
  for (const std::string& name : Changed(next)) {
    if (FindOption(name)->reloadable) continue;
    fixed += (fixed.empty() ? "" : ", ") + name;
  }
  if (fixed.empty()) return {};
  return Invalid("only a restart changes " + fixed +
                     "; the old configuration stays in force",
                 "put these back, or restart posd");
}

std::string Config::ToYaml() const {
  std::string out;
  for (const Group& group : Groups()) {
    const std::size_t skip = group.prefix.empty() ? 0 : group.prefix.size() + 1;
    if (skip != 0) out += std::string(group.prefix) + ":\n";
    for (const Option& option : group.options) {
      out += (skip == 0 ? "" : "  ") + std::string(option.name.substr(skip)) +
             ": " + option.get(values_) + "\n";
    }
  }
  return out;
}

}  // namespace pos::conf
