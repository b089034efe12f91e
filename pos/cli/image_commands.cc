// pos-cli images.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>

#include "pos/base/bytes.h"
#include "pos/cli/execution.h"
#include "pos/cli/image_file.h"
#include "pos/cli/json.h"
#include "pos/cli/show.h"
#include "pos/cli/text.h"

namespace pos::cli {

Status Execution::ListImages() {
  POS_ASSIGN_OR_RETURN(const v1::ListImagesReply reply, client_->ListImages());
  Print(ToJson(reply), Show(reply));
  return {};
}

Status Execution::ShowImage() {
  v1::ShowImageRequest request;
  request.set_image(options_.target);
  POS_ASSIGN_OR_RETURN(const v1::ShowImageReply reply,
                       client_->ShowImage(request));
  POS_ASSIGN_OR_RETURN(const std::string json, ToJson(reply));
  POS_ASSIGN_OR_RETURN(const std::string text, Show(reply));
  Print(json, text);
  return {};
}

Status Execution::VerifyImage() {
  v1::VerifyImageRequest request;
  request.set_image(options_.target);
  POS_ASSIGN_OR_RETURN(
      const v1::VerifyResult result,
      client_->VerifyImage(request, Progress("verify " + options_.target),
                           &cancel_));
  const std::string text = ShowVerified(options_.target, result);
  if (result.problems() == 0) {
    Print(VerifyJson(options_.target, result, {}), text);
    return {};
  }
  const Status status(
      Code::kCorrupt,
      "image " + options_.target + " has " + std::to_string(result.problems()) +
          " problems",
      "restore another image of the job; `pos-cli images rm` removes this one");
  PrintFailed(VerifyJson(options_.target, result, status), text, status);
  return status;
}

Status Execution::RemoveImage() {
  v1::RemoveImageRequest request;
  request.set_image(options_.target);
  POS_RETURN_IF_ERROR(client_->RemoveImage(request, &cancel_));
  Print(RemovedJson(options_.target),
        Printable(options_.target) + " removed\n");
  return {};
}

Status Execution::DiffImages() {
  v1::DiffImagesRequest request;
  request.set_image_a(options_.target);
  request.set_image_b(options_.target_b);
  POS_ASSIGN_OR_RETURN(const v1::DiffImagesReply reply,
                       client_->DiffImages(request, &cancel_));
  Print(DiffJson(request, reply), Show(reply));
  return {};
}

Status Execution::CollectGarbage() {
  POS_ASSIGN_OR_RETURN(const v1::CollectGarbageReply reply,
                       client_->CollectGarbage(&cancel_));
  Print(ToJson(reply), Show(reply));
  return {};
}

Status Execution::ExportImage() {
  v1::ExportImageRequest request;
  request.set_image(options_.target);
  POS_ASSIGN_OR_RETURN(const std::unique_ptr<ImageFile> file,
                       ImageFile::Create(options_.file));
  writes_in_place_ = file->in_place();
  POS_ASSIGN_OR_RETURN(Pipe pipe, MakePipe());
  Ticket ticket;
  RandomBytes(ticket);
  request.set_ticket(ticket.data(), ticket.size());
  Result<UniqueFd> offer = client_->Offer(ticket, {-1, pipe.write.get(), -1});
  POS_RETURN_IF_ERROR(offer.status());
  pipe.write.Reset();
  Pump pump = Pump::FromPipe(std::move(pipe.read), file->fd());
  const Result<v1::ExportResult> result = client_->ExportImage(
      request, Progress("export of " + Printable(options_.target)), &cancel_);
  offer = UniqueFd();  // a pipe that nobody took out ends with it
  const Result<std::uint64_t> copied = pump.Finish(/*stop=*/!result.ok());
  // What went wrong here is why posd could not go on.
  if (!copied.ok() && !cancel_.cancelled()) return copied.status();
  POS_RETURN_IF_ERROR(result.status());
  POS_RETURN_IF_ERROR(copied.status());
  if (*copied != result->bytes()) {
    return Closed("posd wrote " + std::to_string(result->bytes()) + " bytes, " +
                  std::to_string(*copied) + " have come");
  }
  POS_RETURN_IF_ERROR(file->Publish());
  const std::string json =
      ExportedJson(options_.target, options_.file, *result);
  const std::string text = Printable(options_.target) + ": " +
                           FormatBytes(result->bytes()) + " written\n";
  if (options_.file == kStandardStream) {
    console_->Err(console_->json() ? json + "\n" : text);
  } else {
    Print(json, text);
  }
  return {};
}

Status Execution::ImportImage() {
  v1::ImportImageRequest request;
  POS_ASSIGN_OR_RETURN(const UniqueFd file, OpenImageFile(options_.file));
  request.set_total_bytes(RegularFileBytes(file.get()));
  POS_ASSIGN_OR_RETURN(Pipe pipe, MakePipe());
  Ticket ticket;
  RandomBytes(ticket);
  request.set_ticket(ticket.data(), ticket.size());
  Result<UniqueFd> offer = client_->Offer(ticket, {pipe.read.get(), -1, -1});
  POS_RETURN_IF_ERROR(offer.status());
  pipe.read.Reset();
  Pump pump = Pump::ToPipe(file.get(), std::move(pipe.write));
  const Result<v1::ImportResult> result = client_->ImportImage(
      request, Progress("import of " + Printable(options_.file)), &cancel_);
  offer = UniqueFd();
  const Result<std::uint64_t> copied = pump.Finish(/*stop=*/true);
  if (!result.ok() && !copied.ok() && !cancel_.cancelled()) {
    return copied.status();
  }
  POS_RETURN_IF_ERROR(result.status());
  Print(ToJson(*result), Show(*result));
  return {};
}

}  // namespace pos::cli
