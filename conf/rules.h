// Combinations of options that make no sense.
#ifndef CONF_RULES_H_
#define CONF_RULES_H_

#include <functional>
#include <string>
#include <string_view>

#include "conf/config.h"

namespace pos::conf {

// Calls `wrong` for every mistake, with the option to blame.
void CheckRules(const Values& values,
                const std::function<void(std::string_view option,
                                         const std::string& why)>& wrong);

}  // namespace pos::conf

#endif  // CONF_RULES_H_
