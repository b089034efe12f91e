// The version of POS, as `pos-cli --version` prints and images record it.
#ifndef POS_BASE_VERSION_H_
#define POS_BASE_VERSION_H_

namespace pos {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace pos

#endif  // POS_BASE_VERSION_H_
