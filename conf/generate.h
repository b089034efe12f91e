// The commented sample and the reference page, from the table of options.
#ifndef CONF_GENERATE_H_
#define CONF_GENERATE_H_

#include <string>

namespace pos::conf {

// conf/posd.yaml: every option, commented out, with its default.
[[nodiscard]] std::string SampleYaml();
// docs/configuration.md.
[[nodiscard]] std::string ReferencePage();
// For posd --help: names, defaults and what they are for, for a terminal.
[[nodiscard]] std::string OptionsHelp();

}  // namespace pos::conf

#endif  // CONF_GENERATE_H_
