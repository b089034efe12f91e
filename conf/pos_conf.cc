// Prints what is generated from the table of options.
//
//   pos-conf sample >conf/posd.yaml
//   pos-conf reference >docs/configuration.md
//   pos-conf help
#include <cstdio>
#include <string>

#include "conf/generate.h"

int main(int argc, char** argv) {
  const std::string what = argc == 2 ? argv[1] : "";
  std::string text;
  if (what == "sample") {
    text = pos::conf::SampleYaml();
  } else if (what == "reference") {
    text = pos::conf::ReferencePage();
  } else if (what == "help") {
    text = pos::conf::OptionsHelp();
  } else {
    std::fprintf(stderr, "usage: pos-conf sample|reference|help\n");
    return 2;
  }
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() ? 0
                                                                         : 1;
}
