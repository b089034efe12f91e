#include "pos/job/process_tree.h"

#include <sstream>

#include "pos/base/files.h"
#include "pos/base/process.h"

namespace pos::job {
namespace {

// "PID (NAME) STATE PPID …"; NAME may hold anything.
bool ReadStat(pid_t pid, ProcessInfo* info) {
  const Result<std::string> stat =
      ReadWholeFile("/proc/" + std::to_string(pid) + "/stat");
  if (!stat.ok()) return false;
  const std::size_t open = stat->find('(');
  const std::size_t close = stat->rfind(')');
  if (open == std::string::npos || close == std::string::npos ||
      close + 2 >= stat->size()) {
    return false;
  }
  info->pid = pid;
  info->name = stat->substr(open + 1, close - open - 1);
  info->state = (*stat)[close + 2];
  return true;
}

// Appends the children of one process.
void AddChildren(pid_t parent, pid_t parent_ns_pid,
                 std::vector<ProcessInfo>* processes) {
  const Result<std::vector<pid_t>> children = ChildrenOf(parent);
  if (!children.ok()) return;  // ended meanwhile
  for (const pid_t child : *children) {
    ProcessInfo info;
    const Result<pid_t> inner = InnermostPid(child);
    if (!inner.ok() || !ReadStat(child, &info)) continue;
    info.ns_pid = *inner;
    info.parent_ns_pid = parent_ns_pid;
    processes->push_back(std::move(info));
  }
}

}  // namespace

Result<std::vector<ProcessInfo>> ListJobProcesses(pid_t init) {
  if (!PathExists("/proc/" + std::to_string(init))) {
    return NoSuch("the job's first process is gone");
  }
  std::vector<ProcessInfo> processes;
  AddChildren(init, 1, &processes);
  for (std::size_t i = 0; i < processes.size(); ++i) {
    AddChildren(processes[i].pid, processes[i].ns_pid, &processes);
  }
  return processes;
}

Result<ProcessInfo> FindJobProcess(pid_t init, pid_t ns_pid) {
  POS_ASSIGN_OR_RETURN(const std::vector<ProcessInfo> processes,
                       ListJobProcesses(init));
  for (const ProcessInfo& process : processes) {
    if (process.ns_pid == ns_pid) return process;
  }
  return NoSuch("the job has no process " + std::to_string(ns_pid));
}

std::string Describe(const ProcessInfo& process) {
  return std::to_string(process.ns_pid) + " (" + process.name + ")";
}

std::string StatusField(pid_t pid, const std::string& key) {
  const Result<std::string> status =
      ReadWholeFile("/proc/" + std::to_string(pid) + "/status");
  if (!status.ok()) return "";
  std::istringstream lines(*status);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, key.size() + 1, key + ":") != 0) continue;
    const std::size_t at = line.find_first_not_of(" \t", key.size() + 1);
    return at == std::string::npos ? "" : line.substr(at);
  }
  return "";
}

}  // namespace pos::job
