// The configuration reader on arbitrary text: it may refuse, never crash; what
// it takes, it can write out and read again as the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "conf/config.h"
#include "planted.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = pos::conf::Config::Parse(text, "fuzz");
  if (!config.ok()) return 0;
  // Neither the default nor the corpus's.
  pos::fuzz::PlantedBug(config->stop_grace_ms() != 10'000 &&
                        config->stop_grace_ms() != 30'000);
  const auto again = pos::conf::Config::Parse(config->ToYaml(), "again");
  if (!again.ok() || !(*again == *config)) std::abort();
  return 0;
}
