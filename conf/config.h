// The configuration of posd: an immutable value with one typed accessor per
// option of conf/options.def.
//
//   Result<Config> config = Config::Load("/etc/pos/posd.yaml");
//   config->session_linger_ms();   // std::uint64_t, milliseconds
//
// Threads: a value; copies are independent.
// Errors:  kInvalid, one line per mistake (up to 20), each with file, line and
//          column: unknown options with the nearest name, values of another
//          type or out of range, combinations that make no sense. kNoSuch and
//          other errno codes when the file cannot be read.
// Source:  YAML 1.2 as yaml-cpp reads it. Its exceptions end here.
//
// Test: tests/conf/config_test.cc   Fuzz: tests/fuzz/config_fuzz.cc
#ifndef CONF_CONFIG_H_
#define CONF_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/choices.h"
#include "conf/units.h"
#include "pos/base/status.h"

namespace pos::conf {

inline constexpr std::uint64_t kMaxConfigBytes = 256 << 10;

// One field per option, with its default. Bytes and addresses are std::uint64_t
// too, times are milliseconds.
struct Values {
#define POS_CONF_BOOL(id, name, value, ...) bool id = (value);
#define POS_CONF_INT(id, name, value, ...) std::uint64_t id = (value);
#define POS_CONF_TIME(id, name, value, ...) std::uint64_t id = (value);
#define POS_CONF_BYTES(id, name, value, ...) std::uint64_t id = (value);
#define POS_CONF_ADDRESS(id, name, value, ...) std::uint64_t id = (value);
#define POS_CONF_TEXT(id, name, value, ...) std::string id = (value);
#define POS_CONF_CHOICE(id, name, type, value, ...) type id = (value);
#define POS_CONF_CHOICES(id, name, type, value, ...) \
  std::vector<type> id = {(value)};
#include "conf/options.def"

  friend bool operator==(const Values&, const Values&) = default;
};

// An option given on the command line: name and value, spelled as in the file.
using Override = std::pair<std::string, std::string>;

class Config {
 public:
  Config() = default;  // all defaults

  // `file` is the name in errors.
  static Result<Config> Parse(std::string_view text, const std::string& file,
                              const std::vector<Override>& overrides = {});
  static Result<Config> Load(const std::string& path,
                             const std::vector<Override>& overrides = {});

  // A SIGHUP: OK when the running configuration may become `next`, else
  // kInvalid naming the options that only a restart changes.
  [[nodiscard]] Status CheckReload(const Config& next) const;
  // Names of the options that differ.
  [[nodiscard]] std::vector<std::string> Changed(const Config& next) const;
  // All options and their values, as a file that Parse takes.
  [[nodiscard]] std::string ToYaml() const;

#define POS_CONF_BOOL(id, ...) \
  [[nodiscard]] bool id() const { return values_.id; }
#define POS_CONF_INT(id, ...) \
  [[nodiscard]] std::uint64_t id() const { return values_.id; }
#define POS_CONF_TIME POS_CONF_INT
#define POS_CONF_BYTES POS_CONF_INT
#define POS_CONF_ADDRESS POS_CONF_INT
#define POS_CONF_TEXT(id, ...) \
  [[nodiscard]] const std::string& id() const { return values_.id; }
#define POS_CONF_CHOICE(id, name, type, ...) \
  [[nodiscard]] type id() const { return values_.id; }
#define POS_CONF_CHOICES(id, name, type, ...) \
  [[nodiscard]] const std::vector<type>& id() const { return values_.id; }
#include "conf/options.def"

  friend bool operator==(const Config&, const Config&) = default;

 private:
  explicit Config(Values values) : values_(std::move(values)) {}

  Values values_;
};

}  // namespace pos::conf

#endif  // CONF_CONFIG_H_
