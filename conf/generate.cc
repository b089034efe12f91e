#include "conf/generate.h"

#include <sstream>

#include "conf/options.h"

namespace pos::conf {
namespace {

// `text` in lines of at most `width` characters, each after `prefix`.
std::string Wrapped(std::string_view text, const std::string& prefix,
                    std::size_t width = 79) {
  std::istringstream words{std::string(text)};
  std::string out;
  std::string line = prefix;
  bool first = true;
  for (std::string word; words >> word; first = false) {
    if (!first && line.size() + 1 + word.size() > width) {
      out += line + "\n";
      line = prefix;
      first = true;
    }
    line += (first ? "" : " ") + word;
  }
  return out + line + "\n";
}

std::string_view LastPart(const Group& group, const Option& option) {
  return option.name.substr(group.prefix.empty() ? 0 : group.prefix.size() + 1);
}

// '|' ends a cell of a Markdown table.
std::string Cell(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

std::string SampleYaml() {
  std::string out =
      "# Configuration of posd. Every option is shown with its default;\n"
      "# take away the '#' before an option, and before its group, to change\n"
      "# it. A value marked (reload) is taken up on SIGHUP, the others at the\n"
      "# next start. Generated from conf/options.def by pos-conf.\n";
  for (const Group& group : Groups()) {
    const std::string indent = group.prefix.empty() ? "" : "  ";
    out += "\n" + Wrapped(group.help, "# ");
    if (!group.prefix.empty()) out += "#" + std::string(group.prefix) + ":\n";
    for (const Option& option : group.options) {
      std::string help(option.help);
      if (!option.allowed.empty()) help += " [" + option.allowed + "]";
      if (option.reloadable) help += " (reload)";
      out += Wrapped(help, "#" + indent + "# ");
      out += "#" + indent + std::string(LastPart(group, option)) + ": " +
             option.default_value + "\n";
    }
  }
  return out;
}

std::string ReferencePage() {
  std::string out =
      "<!-- Generated from conf/options.def by pos-conf; do not edit. -->\n"
      "# Configuration of posd\n\n"
      "A YAML file given with `posd --config FILE`; `conf/posd.yaml` is a "
      "sample with\nevery option. The dots of a name are levels in the file: "
      "`session.linger_ms` is\n\n"
      "```yaml\nsession:\n  linger_ms: 30s\n```\n\n"
      "Sizes are written `64MiB` (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB) or as "
      "bytes,\ndurations `30s` (ms, s, m, h, d); options whose name ends in "
      "`_ms` take a bare\nnumber of milliseconds too. Unknown options, wrong "
      "values and combinations that\nmake no sense are refused with file, line "
      "and column.\n\n"
      "On SIGHUP posd reads the file again. Options marked *reload* take "
      "effect; if\nanother one changed, or the file is wrong, nothing does.\n";
  for (const Group& group : Groups()) {
    out += "\n## " +
           (group.prefix.empty() ? std::string("General")
                                 : "`" + std::string(group.prefix) + "`") +
           "\n\n" + Wrapped(group.help, "") + "\n";
    out += "| option | default | allowed | | |\n|---|---|---|---|---|\n";
    for (const Option& option : group.options) {
      out += "| `" + std::string(option.name) + "` | `" +
             Cell(option.default_value) + "` | " +
             (option.allowed.empty() ? std::string(option.type)
                                     : Cell(option.allowed)) +
             " | " + (option.reloadable ? "reload" : "restart") + " | " +
             Cell(option.help) + " |\n";
    }
  }
  return out;
}

std::string OptionsHelp() {
  std::string out;
  for (const Group& group : Groups()) {
    for (const Option& option : group.options) {
      out += "  " + std::string(option.name) + " = " + option.default_value +
             "\n" + Wrapped(option.help, "      ");
    }
  }
  return out;
}

}  // namespace pos::conf
