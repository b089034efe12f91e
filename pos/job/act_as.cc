#include "pos/job/act_as.h"

#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace pos::job {
namespace {

// The C library's setgroups changes every thread of the process.
bool SetThreadGroups(const std::vector<gid_t>& groups) {
  return ::syscall(SYS_setgroups, groups.size(), groups.data()) == 0;
}

}  // namespace

ActAs::ActAs(const JobImage& image) {
  Take(image.uid(), image.gid(),
       {image.groups().begin(), image.groups().end()});
}

ActAs::ActAs(uid_t uid, gid_t gid, const std::vector<gid_t>& groups) {
  Take(uid, gid, groups);
}

void ActAs::Take(uid_t uid, gid_t gid, const std::vector<gid_t>& groups) {
  if (::geteuid() != 0) return;
  const int count = ::getgroups(0, nullptr);
  own_groups_.resize(static_cast<std::size_t>(count > 0 ? count : 0));
  if (count < 0 || ::getgroups(count, own_groups_.data()) < 0 ||
      !SetThreadGroups(groups)) {
    status_ = ErrnoStatus(errno, "take on the groups of the job's user");
    return;
  }
  changed_ = true;
  ::setfsgid(gid);
  ::setfsuid(uid);  // gives up root's rights over files, too
  // These calls report no error; asking again for nobody tells.
  if (::setfsuid(static_cast<uid_t>(-1)) != static_cast<int>(uid) ||
      ::setfsgid(static_cast<gid_t>(-1)) != static_cast<int>(gid)) {
    status_ =
        Denied("cannot take on the rights of user " + std::to_string(uid));
  }
}

ActAs::~ActAs() {
  if (!changed_) return;
  ::setfsuid(::geteuid());
  ::setfsgid(::getegid());
  if (!SetThreadGroups(own_groups_)) std::abort();  // with wrong rights
}

}  // namespace pos::job
