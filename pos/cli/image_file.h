// Exported images between a file of the user's and the pipe that posd has the
// other end of. posd never touches the user's file: a file system may take any
// time, and root may do what the user may not.
//
// Threads: a Pump has one of its own, from its creation to Finish.
//
// Test: tests/pos/cli/image_file_test.cc
#ifndef POS_CLI_IMAGE_FILE_H_
#define POS_CLI_IMAGE_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "pos/base/fd.h"
#include "pos/base/status.h"

namespace pos::cli {

// In place of a file's name.
inline constexpr const char* kStandardStream = "-";

// A file that is being made. It has its name once it is complete: until then it
// has none, where the file system can do that, and else "NAME.part.PID.RANDOM",
// which a process that is killed leaves behind.
class ImageFile {
 public:
  // kExists when there is a regular file of that name. What is no regular file
  // (a FIFO, a device) is written as it is; "-" is standard output, which may
  // not be a terminal.
  static Result<std::unique_ptr<ImageFile>> Create(const std::string& name);
  ~ImageFile();  // without Publish: nothing is left
  ImageFile(const ImageFile&) = delete;
  ImageFile& operator=(const ImageFile&) = delete;

  [[nodiscard]] int fd() const { return fd_.get(); }
  // Others see what is written as it comes: a FIFO, standard output.
  [[nodiscard]] bool in_place() const { return kind_ == Kind::kAsItIs; }
  // Everything on the disk, under its name. kExists when somebody was faster.
  // Only a file system that has neither files without a name, nor renaming to
  // a free name only, nor links can let two of the same name replace each
  // other.
  Status Publish();

 private:
  enum class Kind { kAsItIs, kUnnamed, kPart };
  explicit ImageFile(std::string name) : name_(std::move(name)) {}
  // kPart's file gets its name. 0 or errno.
  [[nodiscard]] int PublishPart();

  const std::string name_;
  std::string part_name_;  // of kPart
  Kind kind_ = Kind::kAsItIs;
  UniqueFd fd_;
  bool published_ = false;
};

// For reading; "-" is standard input.
Result<UniqueFd> OpenImageFile(const std::string& name);
// 0 when `fd` is no regular file.
[[nodiscard]] std::uint64_t RegularFileBytes(int fd);

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};
Result<Pipe> MakePipe();

// Copies everything between a pipe and a file.
class Pump {
 public:
  // `file` stays the caller's and outlives the pump.
  static Pump FromPipe(UniqueFd pipe, int file);
  static Pump ToPipe(int file, UniqueFd pipe);
  ~Pump();
  Pump(Pump&&) = default;

  // Waits for its end: of what there is to copy, of the pipe's other end, or,
  // with `stop`, soon. Bytes copied, or why the file could not be read or
  // written. Once.
  Result<std::uint64_t> Finish(bool stop);

 private:
  struct State;
  explicit Pump(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
  std::thread thread_;
};

}  // namespace pos::cli

#endif  // POS_CLI_IMAGE_FILE_H_
