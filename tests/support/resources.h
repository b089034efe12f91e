// What this process holds, for tests that nothing may be left behind.
#ifndef POS_TESTS_SUPPORT_RESOURCES_H_
#define POS_TESTS_SUPPORT_RESOURCES_H_

#include <gtest/gtest.h>

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
  // Waits for threads to go: a joined one stays in /proc for a moment, and for
  // longer where processors are scarce. Says so when they do not.
  static Resources WithThreads(std::size_t threads) {
    const Deadline deadline = Deadline::AfterMs(20000);
    Backoff backoff;
    std::size_t left = Entries("/proc/self/task");
    for (; left > threads && !deadline.Passed();
         left = Entries("/proc/self/task")) {
      backoff.Wait();
    }
    EXPECT_LE(left, threads) << "threads that do not go";
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
