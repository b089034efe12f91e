#include "pos/job/descriptors.h"

#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cinttypes>
#include <climits>
#include <cstdio>
#include <sstream>

#include "pos/base/files.h"

namespace pos::job {
namespace {

constexpr std::string_view kDeleted = " (deleted)";

std::string ReadLink(const std::string& path) {
  std::array<char, PATH_MAX> buffer;
  const ssize_t n = ::readlink(path.c_str(), buffer.data(), buffer.size());
  return n < 0 ? "" : std::string(buffer.data(), static_cast<std::size_t>(n));
}

void ReadInfo(const std::string& path, Descriptor* descriptor) {
  const Result<std::string> info = ReadWholeFile(path);
  if (!info.ok()) return;
  std::istringstream lines(*info);
  for (std::string line; std::getline(lines, line);) {
    std::sscanf(line.c_str(), "flags: %o",
                reinterpret_cast<unsigned*>(&descriptor->flags));
    std::sscanf(line.c_str(), "mnt_id: %d", &descriptor->mount_id);
  }
}

}  // namespace

bool IsDeletedTarget(const std::string& target) {
  return target.size() > kDeleted.size() &&
         target.compare(target.size() - kDeleted.size(), kDeleted.size(),
                        kDeleted) == 0 &&
         !PathExists(target);
}

Result<std::vector<Descriptor>> ListDescriptors(pid_t pid) {
  const std::string base = "/proc/" + std::to_string(pid);
  POS_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       ListDirectory(base + "/fd"));
  std::vector<Descriptor> descriptors;
  for (const std::string& name : names) {
    Descriptor descriptor;
    const auto [end, error] = std::from_chars(
        name.data(), name.data() + name.size(), descriptor.number);
    const std::string link = base + "/fd/" + name;
    descriptor.target = ReadLink(link);
    if (error != std::errc() || descriptor.target.empty() ||
        ::stat(link.c_str(), &descriptor.st) != 0) {
      continue;
    }
    ReadInfo(base + "/fdinfo/" + name, &descriptor);
    descriptors.push_back(std::move(descriptor));
  }
  return descriptors;
}

Result<std::vector<Mapping>> ListMappings(pid_t pid) {
  POS_ASSIGN_OR_RETURN(
      const std::string maps,
      ReadWholeFile("/proc/" + std::to_string(pid) + "/maps", 256u << 20));
  std::vector<Mapping> mappings;
  std::istringstream lines(maps);
  for (std::string line; std::getline(lines, line);) {
    Mapping mapping;
    std::array<char, 5> flags{};
    unsigned major = 0;
    unsigned minor = 0;
    int path_at = 0;
    if (std::sscanf(line.c_str(),
                    "%" SCNx64 "-%" SCNx64 " %4s %*x %x:%x %" SCNu64 " %n",
                    &mapping.start, &mapping.end, flags.data(), &major, &minor,
                    &mapping.inode, &path_at) < 6) {
      return Internal("odd line in /proc/PID/maps: " + line);
    }
    mapping.writable = flags[1] == 'w';
    mapping.shared = flags[3] == 's';
    mapping.device = makedev(major, minor);
    mapping.target = line.substr(static_cast<std::size_t>(path_at));
    mappings.push_back(std::move(mapping));
  }
  return mappings;
}

Result<std::vector<int>> ListMountIds(pid_t pid) {
  POS_ASSIGN_OR_RETURN(
      const std::string info,
      ReadWholeFile("/proc/" + std::to_string(pid) + "/mountinfo"));
  std::vector<int> ids;
  std::istringstream lines(info);
  for (std::string line; std::getline(lines, line);) {
    int id = 0;
    if (std::sscanf(line.c_str(), "%d", &id) == 1) ids.push_back(id);
  }
  return ids;
}

}  // namespace pos::job
