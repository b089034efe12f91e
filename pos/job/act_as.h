// File access with the rights of a job's user, for as long as the object lives.
//
// Threads: changes the calling thread alone (file-system uid, gid and groups).
// Without root nothing is changed: then the user is our own.
#ifndef POS_JOB_ACT_AS_H_
#define POS_JOB_ACT_AS_H_

#include <sys/types.h>

#include <vector>

#include "pos/base/status.h"
#include "pos/job/job.pb.h"

namespace pos::job {

class ActAs {
 public:
  explicit ActAs(const JobImage& image);
  ActAs(uid_t uid, gid_t gid, const std::vector<gid_t>& groups);
  ~ActAs();
  ActAs(const ActAs&) = delete;
  ActAs& operator=(const ActAs&) = delete;

  // Not OK when the rights could not be taken on; nothing may be touched then.
  [[nodiscard]] const Status& status() const { return status_; }

 private:
  void Take(uid_t uid, gid_t gid, const std::vector<gid_t>& groups);

  Status status_;
  bool changed_ = false;
  std::vector<gid_t> own_groups_;
};

}  // namespace pos::job

#endif  // POS_JOB_ACT_AS_H_
