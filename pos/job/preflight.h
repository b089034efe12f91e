// Finds what CRIU cannot carry, before a dump touches anything: once before a
// checkpoint holds the job back, and again just before CRIU begins.
//
// It names the common cases (GPU devices, io_uring, userfaultfd, network
// connections, tracers, namespaces of the program's own, daemons, …) in the
// user's terms. It is not complete: CRIU has the last word, and its own words
// are shown then.
//
// Threads: any. Blocking: reads /proc, about 20 us per descriptor.
//
// Test: tests/pos/job/preflight_test.cc
#ifndef POS_JOB_PREFLIGHT_H_
#define POS_JOB_PREFLIGHT_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "pos/base/status.h"

namespace pos::job {

struct PreflightScope {
  pid_t init = 0;     // first process of the namespace, as seen here
  pid_t program = 0;  // root of the tree, as seen here
  // Devices (st_rdev) of the terminals that pos-job holds the other end of.
  std::vector<dev_t> terminals;
  // What the client library has open; see Preflight in job.proto.
  std::vector<std::string> own_files = {};
  std::string own_socket = {};
  // Who is connected there is just being attached; see Dump in job.proto.
  std::string attach_socket = {};
};

// One sentence per finding, process and thing named; empty: go ahead.
Result<std::vector<std::string>> FindBlockers(const PreflightScope& scope);

// The findings as one error (kIncompatible); OK when there are none.
[[nodiscard]] Status BlockersToStatus(const std::vector<std::string>& blockers);

}  // namespace pos::job

#endif  // POS_JOB_PREFLIGHT_H_
