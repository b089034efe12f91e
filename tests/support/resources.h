// What this process holds, for tests that nothing may be left behind.
#ifndef POS_TESTS_SUPPORT_RESOURCES_H_
#define POS_TESTS_SUPPORT_RESOURCES_H_

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "pos/base/backoff.h"
#include "pos/base/clock.h"

namespace pos {

struct Resources {
  std::size_t threads = 0;
  std::size_t descriptors = 0;
  std::size_t mappings = 0;
  std::size_t resident_kb = 0;

  static Resources Now() {
    Resources now;
    now.threads = Entries("/proc/self/task");
    now.descriptors = Entries("/proc/self/fd");
    std::ifstream maps("/proc/self/maps");
    now.mappings = static_cast<std::size_t>(
        std::count(std::istreambuf_iterator<char>(maps), {}, '\n'));
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
      if (word == "VmRSS:") status >> now.resident_kb;
    }
    return now;
  }
  // Waits a while for threads to go: a joined one stays in /proc for a moment.
  static Resources WithThreads(std::size_t threads) {
    const Deadline deadline = Deadline::AfterMs(1000);
    Backoff backoff;
    while (Entries("/proc/self/task") > threads && !deadline.Passed()) {
      backoff.Wait();
    }
    return Now();
  }

 private:
  static std::size_t Entries(const char* directory) {
    const std::filesystem::directory_iterator all(directory);
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }
};

}  // namespace pos

#endif  // POS_TESTS_SUPPORT_RESOURCES_H_
