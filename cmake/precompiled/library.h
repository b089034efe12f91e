// What most sources include, read once for each build tree (POS_PCH). No source
// may rest on it: each includes what it uses, as the clang tree, whose own
// sources are compiled without it, shows.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>
