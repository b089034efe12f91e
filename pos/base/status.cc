#include "pos/base/status.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace pos {
namespace {

struct CodeRow {
  Code code;
  std::string_view name;
};

constexpr std::array<CodeRow, 18> kCodes = {{
    {Code::kOk, "OK"},
    {Code::kBusy, "BUSY"},
    {Code::kNotReady, "NOT_READY"},
    {Code::kTimeout, "TIMEOUT"},
    {Code::kClosed, "CLOSED"},
    {Code::kProto, "PROTO"},
    {Code::kNoSuch, "NO_SUCH"},
    {Code::kExists, "EXISTS"},
    {Code::kOutOfMemory, "OUT_OF_MEMORY"},
    {Code::kDiskFull, "DISK_FULL"},
    {Code::kDenied, "DENIED"},
    {Code::kInvalid, "INVALID"},
    {Code::kIncompatible, "INCOMPATIBLE"},
    {Code::kCorrupt, "CORRUPT"},
    {Code::kCriu, "CRIU"},
    {Code::kDeviceGone, "DEVICE_GONE"},
    {Code::kAborted, "ABORTED"},
    {Code::kInternal, "INTERNAL"},
}};

const std::string& EmptyString() {
  static const std::string* const kEmpty = new std::string;
  return *kEmpty;
}

}  // namespace

std::string_view CodeName(Code code) {
  for (const CodeRow& row : kCodes) {
    if (row.code == code) return row.name;
  }
  return "INTERNAL";
}

Code CodeFromName(std::string_view name) {
  for (const CodeRow& row : kCodes) {
    if (row.name == name) return row.code;
  }
  return Code::kInternal;
}

Status::Status(Code code, std::string message, std::string hint) {
  if (code == Code::kOk) return;
  rep_ = std::make_unique<Rep>(Rep{code, std::move(message), std::move(hint)});
}

Status::Status(const Status& other) { *this = other; }

Status& Status::operator=(const Status& other) {
  if (this != &other) {
    rep_ = other.ok() ? nullptr : std::make_unique<Rep>(*other.rep_);
  }
  return *this;
}

const std::string& Status::message() const {
  return ok() ? EmptyString() : rep_->message;
}

const std::string& Status::hint() const {
  return ok() ? EmptyString() : rep_->hint;
}

std::string Status::ToString() const {
  if (ok()) return "OK";
  std::string text(CodeName(rep_->code));
  text += ": ";
  text += rep_->message;
  return text;
}

Status Status::WithContext(std::string_view context) const {
  if (ok()) return {};
  std::string message(context);
  message += ": ";
  message += rep_->message;
  return {rep_->code, std::move(message), rep_->hint};
}

#define POS_STATUS_WITH_HINT_(Name)                              \
  Status Name(std::string message, std::string hint) {           \
    return {Code::k##Name, std::move(message), std::move(hint)}; \
  }
POS_STATUS_WITH_HINT_(Busy)
POS_STATUS_WITH_HINT_(NotReady)
POS_STATUS_WITH_HINT_(Timeout)
POS_STATUS_WITH_HINT_(Closed)
POS_STATUS_WITH_HINT_(NoSuch)
POS_STATUS_WITH_HINT_(Exists)
POS_STATUS_WITH_HINT_(OutOfMemory)
POS_STATUS_WITH_HINT_(Denied)
POS_STATUS_WITH_HINT_(Invalid)
POS_STATUS_WITH_HINT_(Incompatible)
#undef POS_STATUS_WITH_HINT_

Status Proto(std::string message) { return {Code::kProto, std::move(message)}; }
Status Corrupt(std::string message) {
  return {Code::kCorrupt, std::move(message)};
}
Status Aborted(std::string message) {
  return {Code::kAborted, std::move(message)};
}
Status Internal(std::string message) {
  return {Code::kInternal, std::move(message)};
}

Status ErrnoStatus(int error, std::string_view what) {
  Code code = Code::kInternal;
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      code = Code::kDiskFull;
      break;
    case ENOMEM:
      code = Code::kOutOfMemory;
      break;
    case EACCES:
    case EPERM:
      code = Code::kDenied;
      break;
    case ENOENT:
      code = Code::kNoSuch;
      break;
    case EEXIST:
      code = Code::kExists;
      break;
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
      code = Code::kClosed;
      break;
    case ETIMEDOUT:
      code = Code::kTimeout;
      break;
    default:
      break;
  }
  std::string message(what);
  message += ": ";
  message += std::generic_category().message(error);
  return {code, std::move(message)};
}

}  // namespace pos
