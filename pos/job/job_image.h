// job.img: what pos-job adds to CRIU's files (JobImage in job.proto).
//
// Threads: any. Test: tests/pos/job/job_image_test.cc
#ifndef POS_JOB_JOB_IMAGE_H_
#define POS_JOB_JOB_IMAGE_H_

#include <string>

#include "pos/base/status.h"
#include "pos/job/job.pb.h"

namespace pos::job {

inline constexpr const char* kJobImageFile = "job.img";

Status WriteJobImage(const std::string& directory, const JobImage& image);
// kNoSuch without the file, kCorrupt when it is not what was written.
Result<JobImage> ReadJobImage(const std::string& directory);

// Removes what a dump left outside the image directory for the sake of later
// restores (JobImage.link_remap). For whoever deletes the image; its errors are
// for the log alone.
Status RemoveLeftovers(const JobImage& image);

}  // namespace pos::job

#endif  // POS_JOB_JOB_IMAGE_H_
