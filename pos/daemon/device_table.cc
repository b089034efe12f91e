#include "pos/daemon/device_table.h"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <utility>

namespace pos {
namespace {

bool ParseInt(std::string_view text, int* value) {
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, *value);
  return error == std::errc() && at == end && *value >= 0 && !text.empty();
}

}  // namespace

Result<std::vector<int>> ParseOrdinals(const std::string& text) {
  std::vector<int> ordinals;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    int ordinal = 0;
    if (!ParseInt(part, &ordinal) ||
        std::count(ordinals.begin(), ordinals.end(), ordinal) != 0) {
      return Invalid("'" + text + "' is not a list of devices",
                     "write ordinals separated by commas, such as 0,1");
    }
    ordinals.push_back(ordinal);
  }
  if (ordinals.empty()) return Invalid("no device is named");
  return ordinals;
}

Result<std::map<int, int>> ParseDeviceMap(const std::string& text) {
  std::map<int, int> map;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    const std::size_t colon = part.find(':');
    int from = 0;
    int to = 0;
    if (colon == std::string::npos ||
        !ParseInt(std::string_view(part).substr(0, colon), &from) ||
        !ParseInt(std::string_view(part).substr(colon + 1), &to) ||
        !map.emplace(from, to).second) {
      return Invalid("'" + text + "' is not a device map",
                     "write IMAGE-DEVICE:NODE-DEVICE pairs, such as 0:1,1:0");
    }
  }
  return map;
}

void DeviceTable::Publish(std::vector<NodeDevice> devices) {
  MutexLock lock(&mu_);
  auto next = std::make_shared<DeviceSnapshot>();
  next->generation = snapshot_->generation + 1;
  next->devices = std::move(devices);
  snapshot_ = std::move(next);
}

void DeviceTable::SetWorks(int ordinal, const std::string& why) {
  MutexLock lock(&mu_);
  auto next = std::make_shared<DeviceSnapshot>(*snapshot_);
  ++next->generation;
  for (NodeDevice& device : next->devices) {
    if (device.ordinal != ordinal) continue;
    device.state = why.empty() ? "ready" : "failed";
    device.why = why;
  }
  snapshot_ = std::move(next);
}

std::shared_ptr<const DeviceSnapshot> DeviceTable::snapshot() const {
  MutexLock lock(&mu_);
  return snapshot_;
}

const NodeDevice* DeviceTable::Find(int ordinal) const {
  for (const NodeDevice& device : snapshot_->devices) {
    if (device.ordinal == ordinal) return &device;
  }
  return nullptr;
}

std::uint64_t DeviceTable::FreeLocked(int ordinal) const {
  const NodeDevice* const device = Find(ordinal);
  if (device == nullptr) return 0;
  std::uint64_t used = 0;
  for (const auto& [holder, by_device] : grants_) {
    const auto it = by_device.find(ordinal);
    if (it != by_device.end()) used += it->second;
  }
  return device->memory_bytes - std::min(device->memory_bytes, used);
}

Result<std::vector<int>> DeviceTable::Choose(const std::string& wanted) const {
  MutexLock lock(&mu_);
  if (!wanted.empty()) {
    POS_ASSIGN_OR_RETURN(std::vector<int> ordinals, ParseOrdinals(wanted));
    for (const int ordinal : ordinals) {
      const NodeDevice* const device = Find(ordinal);
      if (device == nullptr) {
        return NoSuch("no device " + std::to_string(ordinal),
                      "`pos-cli devices` lists what there is");
      }
      if (device->state == "failed") {
        return Status(Code::kDeviceGone, "device " + std::to_string(ordinal) +
                                             " does not work: " + device->why);
      }
      if (device->state != "ready") {
        return Busy("device " + std::to_string(ordinal) + " is " +
                    device->state);
      }
    }
    return ordinals;
  }
  int best = -1;
  std::uint64_t most = 0;
  for (const NodeDevice& device : snapshot_->devices) {
    const std::uint64_t free_bytes = FreeLocked(device.ordinal);
    if (device.state == "ready" && (best < 0 || free_bytes > most)) {
      best = device.ordinal;
      most = free_bytes;
    }
  }
  if (best < 0) {
    return NoSuch("no device is ready", "`pos-cli check` says why");
  }
  return std::vector<int>{best};
}

std::uint64_t DeviceTable::Grant(const std::string& holder, int ordinal,
                                 std::uint64_t wanted, std::uint64_t at_most) {
  MutexLock lock(&mu_);
  const std::uint64_t free_bytes = FreeLocked(ordinal);
  if (free_bytes < wanted) return 0;
  const std::uint64_t granted = std::min(free_bytes, std::max(wanted, at_most));
  grants_[holder][ordinal] += granted;
  return granted;
}

void DeviceTable::GiveBack(const std::string& holder, int ordinal,
                           std::uint64_t bytes) {
  MutexLock lock(&mu_);
  const auto it = grants_.find(holder);
  if (it == grants_.end()) return;
  std::uint64_t& held = it->second[ordinal];
  held -= std::min(held, bytes);
}

void DeviceTable::Release(const std::string& holder) {
  MutexLock lock(&mu_);
  grants_.erase(holder);
}

void DeviceTable::AddGranted(const std::string& holder, int ordinal,
                             std::uint64_t bytes) {
  MutexLock lock(&mu_);
  grants_[holder][ordinal] += bytes;
}

std::uint64_t DeviceTable::FreeBytes(int ordinal) const {
  MutexLock lock(&mu_);
  return FreeLocked(ordinal);
}

std::uint32_t DeviceTable::Sessions(int ordinal) const {
  MutexLock lock(&mu_);
  std::uint32_t count = 0;
  for (const auto& [holder, by_device] : grants_) {
    count += by_device.contains(ordinal) ? 1 : 0;
  }
  return count;
}

}  // namespace pos
