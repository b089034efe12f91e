#include "pos/cuda_impl/device_cuda/driver_output.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <span>
#include <string>

#include "pos/base/files.h"
#include "pos/base/log.h"

namespace pos::cuda_device {
namespace {

// Files of text that was read are emptied in steps of this.
constexpr std::uint64_t kForgetBytes = 1 << 20;
// Above what a runner or a test passes on.
constexpr int kLowestCopy = 20;

}  // namespace

Result<std::shared_ptr<DriverOutput>> DriverOutput::Get() {
  Process& process = TheProcess();
  const MutexLock lock(&process.mu);
  if (process.uses == 0) {
    std::unique_ptr<DriverOutput> made(new DriverOutput);
    POS_RETURN_IF_ERROR(made->Redirect());
    process.output = std::move(made);
  }
  ++process.uses;
  return std::shared_ptr<DriverOutput>(process.output.get(), [](DriverOutput*) {
    Process& of = TheProcess();
    const MutexLock end(&of.mu);
    if (--of.uses == 0) of.output.reset();
  });
}

DriverOutput::Process& DriverOutput::TheProcess() {
  static auto& process = *new Process;
  return process;
}

Status DriverOutput::Redirect() {
  const MutexLock lock(&mu_);
  std::fflush(stdout);
  for (Stream& stream : streams_) {
    stream.before =
        UniqueFd(::fcntl(stream.number, F_DUPFD_CLOEXEC, kLowestCopy));
    if (!stream.before.valid()) return ErrnoStatus(errno, "standard streams");
    stream.file = UniqueFd(::memfd_create("pos-driver-output", MFD_CLOEXEC));
    if (!stream.file.valid() ||
        ::fcntl(stream.file.get(), F_SETFL, O_APPEND) != 0) {
      return ErrnoStatus(errno, "a file for what the driver writes");
    }
  }
  SetLogFd(streams_[1].before.get());
  for (const Stream& stream : streams_) {
    if (::dup2(stream.file.get(), stream.number) < 0) {
      return ErrnoStatus(errno, "redirect a standard stream");
    }
  }
  return {};
}

DriverOutput::~DriverOutput() {
  const MutexLock lock(&mu_);
  std::fflush(stdout);
  for (Stream& stream : streams_) {
    if (!stream.before.valid()) continue;
    ::dup2(stream.before.get(), stream.number);
    std::array<char, 1000> piece;
    for (std::string_view text = Next(&stream, &piece); !text.empty();
         text = Next(&stream, &piece)) {
      if (::write(stream.number, text.data(), text.size()) < 0) break;
    }
  }
  SetLogFd(STDERR_FILENO);
}

std::string_view DriverOutput::Next(Stream* stream,
                                    std::array<char, 1000>* piece) {
  ssize_t n = 0;
  do {
    n = ::pread(stream->file.get(), piece->data(), piece->size(),
                static_cast<off_t>(stream->read));
  } while (n < 0 && errno == EINTR);
  if (n <= 0) return {};
  const std::uint64_t before = stream->read / kForgetBytes;
  stream->read += static_cast<std::uint64_t>(n);
  const std::uint64_t now = stream->read / kForgetBytes;
  // A writer may be adding to the end: its file is never cut, only emptied.
  if (now != before) {
    ::fallocate(stream->file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                0, static_cast<off_t>(now * kForgetBytes));
  }
  return {piece->data(), static_cast<std::size_t>(n)};
}

void DriverOutput::Drain(CompletionSink* sink) {
  const MutexLock lock(&mu_);
  // The driver writes through stdio, which keeps text back.
  std::fflush(stdout);
  std::array<char, 1000> piece;
  for (Stream& stream : streams_) {
    const OutputKind kind =
        stream.number == 1 ? OutputKind::kPrinted : OutputKind::kFailed;
    for (std::string_view text = Next(&stream, &piece); !text.empty();
         text = Next(&stream, &piece)) {
      sink->OnDeviceOutput(kind, text);
      if (kind == OutputKind::kPrinted) continue;
      // A log that cannot be written has nowhere to say so.
      [[maybe_unused]] const ssize_t n =
          ::write(stream.before.get(), text.data(), text.size());
    }
  }
}

}  // namespace pos::cuda_device
