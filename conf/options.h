// The table of options at run time: conf/options.def as data.
//
// Threads: immutable.
#ifndef CONF_OPTIONS_H_
#define CONF_OPTIONS_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/config.h"

namespace pos::conf {

// What a file or the command line says for one option, independent of where it
// came from.
struct Given {
  enum class Shape { kScalar, kList, kGroup };
  Shape shape = Shape::kScalar;
  std::string scalar;
  bool quoted = false;  // "true" in quotes is text
  std::vector<std::string> list;
};

struct Option {
  std::string_view name;
  std::string_view type;  // in words: "size", "duration", …
  bool reloadable = false;
  std::string_view help;
  std::string allowed;        // in words; empty: anything
  std::string default_value;  // as it is written in YAML
  // Sets the option; what is wrong with the value, or "".
  std::string (*set)(Values* values, const Given& given);
  // The value as it is written in YAML.
  std::string (*get)(const Values& values);
};

struct Group {
  std::string_view prefix;  // "session"; "" for options without a group
  std::string_view help;
  std::vector<Option> options;
};

// In the order of options.def.
[[nodiscard]] const std::vector<Group>& Groups();
// nullptr when there is no such option.
[[nodiscard]] const Option* FindOption(std::string_view name);
// The option or group whose name is most like `name`, or "" when none is.
[[nodiscard]] std::string_view NearestName(std::string_view name);

}  // namespace pos::conf

#endif  // CONF_OPTIONS_H_
