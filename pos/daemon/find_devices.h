// The node's devices: the GPUs of the driver, simulated ones, or both.
#ifndef POS_DAEMON_FIND_DEVICES_H_
#define POS_DAEMON_FIND_DEVICES_H_

#include <string>
#include <vector>

#include "conf/config.h"
#include "pos/base/status.h"
#include "pos/daemon/device_table.h"

namespace pos {

struct FoundDevices {
  std::vector<NodeDevice> devices;
  std::string why;  // why these, for people
};

// Asks the driver in a process of its own (`program_dir`/pos-runner), for up to
// 60 s. An error when the configuration wants GPUs and there are none.
Result<FoundDevices> FindDevices(const conf::Config& config,
                                 const std::string& program_dir);

}  // namespace pos

#endif  // POS_DAEMON_FIND_DEVICES_H_
