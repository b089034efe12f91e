// Error values of the whole project.
//
// A function that can fail returns Status, or Result<T> when it also yields a
// value; no exception crosses an interface. `Code` is the closed set that
// users' scripts see in `error.code` of pos-cli's JSON output, so a code is
// never renamed.
//
// Threads:   values, no shared state; as safe as an int.
// Ownership: Status owns its message.
#ifndef POS_BASE_STATUS_H_
#define POS_BASE_STATUS_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace pos {

enum class Code {
  kOk = 0,
  kBusy,          // another operation holds the thing; try again
  kNotReady,      // not started, or not in a state that allows this yet
  kTimeout,       // a bound was reached
  kClosed,        // the other end is gone
  kProto,         // the other end broke the protocol
  kNoSuch,        // no thing of that name
  kExists,        // a thing of that name is there already
  kOutOfMemory,   // host or device memory
  kDiskFull,      // no space left where it had to be written
  kDenied,        // not allowed to this user
  kInvalid,       // an argument makes no sense
  kIncompatible,  // right in itself, but not on this host or device
  kCorrupt,       // stored bytes are not what was written
  kCriu,          // CRIU failed; its own words are in the message
  kDeviceGone,    // the device failed or was taken away
  kAborted,       // cancelled before it took effect
  kInternal,      // a bug of POS, or an unexpected system error
};

// "BUSY", "NOT_READY", …: the spelling in JSON and logs.
[[nodiscard]] std::string_view CodeName(Code code);
// The inverse; kInternal for a name that is not in the set.
[[nodiscard]] Code CodeFromName(std::string_view name);

class [[nodiscard]] Status {
 public:
  Status() = default;  // OK; allocates nothing
  Status(Code code, std::string message, std::string hint = "");

  Status(const Status& other);
  Status& operator=(const Status& other);
  Status(Status&&) noexcept = default;
  Status& operator=(Status&&) noexcept = default;
  ~Status() = default;

  [[nodiscard]] bool ok() const { return rep_ == nullptr; }
  [[nodiscard]] Code code() const { return ok() ? Code::kOk : rep_->code; }
  [[nodiscard]] const std::string& message() const;
  // What the user can do next; empty where nothing is known.
  [[nodiscard]] const std::string& hint() const;
  // "BUSY: job a is being checkpointed", for logs.
  [[nodiscard]] std::string ToString() const;

  // The same error with `context: ` put before its message; OK stays OK.
  [[nodiscard]] Status WithContext(std::string_view context) const;

  // For the few places where a failure changes nothing that could be done,
  // such as closing a file on the way out of another error.
  void IgnoreError() const {}

 private:
  struct Rep {
    Code code;
    std::string message;
    std::string hint;
  };
  std::unique_ptr<Rep> rep_;
};

[[nodiscard]] inline Status OkStatus() { return {}; }
Status Busy(std::string message, std::string hint = "");
Status NotReady(std::string message, std::string hint = "");
Status Timeout(std::string message, std::string hint = "");
Status Closed(std::string message, std::string hint = "");
Status Proto(std::string message);
Status NoSuch(std::string message, std::string hint = "");
Status Exists(std::string message, std::string hint = "");
Status OutOfMemory(std::string message, std::string hint = "");
Status Denied(std::string message, std::string hint = "");
Status Invalid(std::string message, std::string hint = "");
Status Incompatible(std::string message, std::string hint = "");
Status Corrupt(std::string message);
Status Aborted(std::string message);
Status Internal(std::string message);
// From an errno value: ENOSPC and EDQUOT are kDiskFull, ENOMEM kOutOfMemory,
// EACCES and EPERM kDenied, ENOENT kNoSuch, EEXIST kExists, else kInternal.
// The message is "`what`: strerror".
Status ErrnoStatus(int error, std::string_view what);

// A T or the reason why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  // Both implicit, so that `return value;` and `return Invalid(…);` work.
  Result(T value) : rep_(std::move(value)) {}        // NOLINT
  Result(Status status) : rep_(std::move(status)) {  // NOLINT
    if (std::get<Status>(rep_).ok()) {
      rep_ = Internal("a Result was made from an OK status");
    }
  }

  [[nodiscard]] bool ok() const { return std::holds_alternative<T>(rep_); }
  [[nodiscard]] Status status() const {
    return ok() ? Status() : std::get<Status>(rep_);
  }
  // Only when ok(); anything else ends the process (std::get throws, and
  // nothing catches).
  [[nodiscard]] T& value() & { return std::get<T>(rep_); }
  [[nodiscard]] const T& value() const& { return std::get<T>(rep_); }
  [[nodiscard]] T&& value() && { return std::get<T>(std::move(rep_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> rep_;
};

}  // namespace pos

#define POS_CONCAT_INNER_(a, b) a##b
#define POS_CONCAT_(a, b) POS_CONCAT_INNER_(a, b)

// Returns the status of `expr` from the enclosing function unless it is OK.
// (Numbered by __COUNTER__: inside a macro's argument every __LINE__ is the
// same.)
#define POS_RETURN_IF_ERROR(expr) \
  POS_RETURN_IF_ERROR_IMPL_(POS_CONCAT_(pos_s_, __COUNTER__), expr)
#define POS_RETURN_IF_ERROR_IMPL_(tmp, expr)               \
  do {                                                     \
    if (::pos::Status tmp = (expr); !tmp.ok()) return tmp; \
  } while (false)

// `decl` = value of the Result `expr`, or returns its status.
#define POS_ASSIGN_OR_RETURN(decl, expr) \
  POS_ASSIGN_OR_RETURN_IMPL_(POS_CONCAT_(pos_r_, __COUNTER__), decl, expr)
#define POS_ASSIGN_OR_RETURN_IMPL_(tmp, decl, expr) \
  auto tmp = (expr);                                \
  if (!tmp.ok()) return tmp.status();               \
  decl = std::move(tmp).value()

#endif  // POS_BASE_STATUS_H_
