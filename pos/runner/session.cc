#include "pos/runner/session.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "pos/base/backoff.h"
#include "pos/base/log.h"
#include "pos/cuda_impl/api/calls.h"

namespace pos {
namespace {

// Stages that spin on more threads than there are processors take each other's
// time; measured on two processors, one thread beats two and three at every
// call rate.
int ChooseThreads(int wanted) {
  if (wanted >= 1 && wanted <= 3) return wanted;
  const int processors =
      static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::clamp(processors / 2, 1, 3);
}

std::uint64_t SpinTime() {
  return std::thread::hardware_concurrency() > 1 ? kSpinNs : 0;
}

// How long posd may take to answer.
constexpr std::uint64_t kScratchMs = 2000;

}  // namespace

Session::Session(const SessionOptions& options, std::vector<Device*> devices,
                 MemoryLedger* ledger, cuda::HostWindow* host)
    : options_(options),
      state_(std::make_unique<cuda::SessionState>(std::move(devices),
                                                  options.layout, ledger)),
      host_(host) {}

Result<std::unique_ptr<Session>> Session::Create(
    const SessionOptions& options, std::vector<Device*> devices,
    MemoryLedger* ledger, cuda::HostWindow* host,
    std::function<void(const Status&)> on_malformed) {
  POS_RETURN_IF_ERROR(options.layout.Check());
  if (devices.empty() || devices.size() > cuda::ArenaLayout::kDevices) {
    return Invalid("a session has 1 to " +
                   std::to_string(cuda::ArenaLayout::kDevices) + " devices");
  }
  std::unique_ptr<Session> session(
      new Session(options, std::move(devices), ledger, host));
  POS_RETURN_IF_ERROR(session->Init(std::move(on_malformed)));
  return session;
}

Status Session::Init(std::function<void(const Status&)> on_malformed) {
  POS_ASSIGN_OR_RETURN(ring_, RingServer::Create(options_.ring));
  port_ = std::make_unique<ShmPort>(ring_.get());
  api_parser_ = std::make_unique<cuda::CudaParser>(state_.get(), port_.get());
  executor_ = std::make_unique<cuda::CudaExecutor>(
      state_.get(), port_.get(), &notices_, &completions_, host_,
      &api_parser_->dropped_error());
  front_end_ = std::make_unique<FrontEnd>(ring_.get(), cuda::Calls(), &pool_,
                                          &to_parser_, std::move(on_malformed));
  parser_ = std::make_unique<Parser>(api_parser_.get(), &pool_, port_.get(),
                                     &to_parser_, &to_worker_, &notices_);
  worker_ = std::make_unique<Worker>(executor_.get(), &pool_, port_.get(),
                                     &to_worker_, &completions_);
  MakeThreads();
  return {};
}

void Session::MakeThreads() {
  const int count = ChooseThreads(options_.stage_threads);
  std::vector<std::vector<Stage*>> groups;
  if (count == 1) {
    groups = {{front_end_.get(), parser_.get(), &watch_stage_, worker_.get()}};
  } else if (count == 2) {
    groups = {{front_end_.get(), parser_.get()},
              {&watch_stage_, worker_.get()}};
  } else {
    groups = {
        {front_end_.get()}, {parser_.get()}, {&watch_stage_, worker_.get()}};
  }
  for (std::size_t i = 0; i < groups.size(); ++i) {
    // The first thread sleeps at the ring's doorbell.
    Parker* parker = &ring_->doorbell();
    if (i != 0) {
      parkers_.push_back(std::make_unique<Parker>());
      parker = parkers_.back().get();
    }
    threads_.push_back(std::make_unique<StageThread>(
        "pos-stage" + std::to_string(i), groups[i], parker, SpinTime()));
  }
  worker_thread_ = threads_.back().get();
  StageThread* const parser_thread = threads_[count == 3 ? 1 : 0].get();
  completions_.SetWake([this] { worker_thread_->Wake(); });
  if (count == 3) {
    front_end_->SetDownstreamWake([parser_thread] { parser_thread->Wake(); });
  }
  if (count >= 2) {
    parser_->SetDownstreamWake([this] { worker_thread_->Wake(); });
    // Notices are for the parser.
    notices_.SetWake([parser_thread] { parser_thread->Wake(); });
  }
}

Session::~Session() {
  Stop();
  // Device work holds tokens into the pool and memory of the session: the
  // executor ends it before anything else goes.
  executor_.reset();
}

void Session::Start() {
  if (started_) return;
  started_ = true;
  for (auto& thread : threads_) thread->Start();
}

void Session::Stop() {
  if (!started_) return;
  {
    MutexLock lock(&still_mu_);
    if (std::exchange(paused_, false)) ResumeAll();
  }
  ring_->SetClosed();
  executor_->CancelAll();
  for (auto& thread : threads_) thread->Stop();
  started_ = false;
}

void Session::PauseAll() {
  for (auto& thread : threads_) thread->Pause();
}

void Session::ResumeAll() {
  for (auto& thread : threads_) thread->Resume();
}

void Session::WakeAll() {
  for (auto& thread : threads_) thread->Wake();
}

bool Session::Quiet() {
  return front_end_->Quiet() && parser_->Quiet() && worker_->Quiet();
}

std::string Session::WhatIsLeft() {
  if (!front_end_->Quiet()) {
    return "the client has begun a call and does not finish it";
  }
  return std::to_string(worker_->in_flight()) +
         " calls are still on the device";
}

void Session::SeekRest(Rest how) {
  worker_->SetHold(how == Rest::kNow ? Worker::Hold::kNow
                                     : Worker::Hold::kWhenIdle);
  WakeAll();
}

void Session::MakeRoom() {
  pool_.SetUnbounded(true);
  WakeAll();
}

void Session::EndRest() {
  pool_.SetUnbounded(false);
  worker_->SetHold(Worker::Hold::kNone);
  WakeAll();
}

Status Session::Quiesce(const Deadline& deadline) {
  {
    MutexLock lock(&still_mu_);
    if (!started_ || paused_) return NotReady("the session does not run");
  }
  pool_.SetUnbounded(true);
  worker_->SetHold(Worker::Hold::kNow);
  WakeAll();
  Backoff backoff;
  for (;;) {
    const bool late = deadline.Passed();
    std::string what;
    {
      MutexLock lock(&still_mu_);
      PauseAll();
      if (Quiet()) {
        paused_ = true;
        return {};
      }
      if (late) what = WhatIsLeft();
      ResumeAll();
    }
    if (late) {
      EndRest();
      return Timeout(what);
    }
    backoff.Wait();
  }
}

void Session::Resume() {
  {
    MutexLock lock(&still_mu_);
    if (!std::exchange(paused_, false)) return;
    ResumeAll();
  }
  EndRest();
}

void Session::Wake() {
  worker_->Retry();
  WakeAll();
}

void Session::SetWatch(MemoryWatch* watch) {
  executor_->SetWatch(watch);
  watch_stage_.Set(watch);
  worker_->Retry();
}

void Session::WhileStill(const std::function<void()>& work) {
  {
    MutexLock lock(&still_mu_);
    const bool running = started_ && !paused_;
    if (running) PauseAll();
    work();
    if (!running) return;
    ResumeAll();
  }
  WakeAll();
}

Result<DeviceAddress> Session::TakeScratch(int device, std::uint64_t bytes) {
  const Deadline deadline = Deadline::AfterMs(kScratchMs);
  Backoff backoff;
  for (;;) {
    const MemoryLedger::Answer answer = state_->ledger->Take(device, bytes);
    if (answer == MemoryLedger::Answer::kGranted) break;
    if (answer == MemoryLedger::Answer::kDenied) {
      return OutOfMemory("no memory for " + std::to_string(bytes) + " bytes");
    }
    if (deadline.Passed()) return Timeout("no answer about memory");
    backoff.Wait();
  }
  const std::optional<std::uint64_t> address =
      state_->blocks[static_cast<std::size_t>(device)].Reserve(
          bytes, Device::kMapGranularity, 0);
  if (address) return *address;
  state_->ledger->GiveBack(device, bytes);
  return OutOfMemory("no addresses for " + std::to_string(bytes) + " bytes");
}

void Session::GiveBackScratchMemory(int device, std::uint64_t bytes) {
  state_->ledger->GiveBack(device, bytes);
}

void Session::GiveBackScratchRange(int device, DeviceAddress address) {
  bool found = false;
  state_->blocks[static_cast<std::size_t>(device)].Free(address, &found);
}

void Session::ReplaceWatch(MemoryWatch* watch) {
  WhileStill([this, watch] { SetWatch(watch); });
}

void Session::CancelAll() { executor_->CancelAll(); }

void Session::SaveCall(const ApiContext& context, ByteWriter* out) {
  out->Put(context.pc);
  out->Put(context.request_id);
  out->Put(context.slot);
  out->Put(context.lease);
  out->Put(context.bulk_bytes);
  out->Put(context.flags);
  out->Put(static_cast<std::uint8_t>(context.answered));
  out->Put(static_cast<std::uint8_t>(context.parsed));
  for (const Handle* handle : context.handles) {
    out->Put(handle == nullptr ? HandleId{0} : handle->id);
  }
  out->Put(static_cast<std::uint32_t>(context.family.size()));
  for (const Handle* handle : context.family) out->Put(handle->id);
  out->Put(context.scratch);
  out->Put(context.result);
  out->PutBytes(std::span(context.reply).first(context.reply_bytes));
  out->PutBytes({context.frame(), context.frame_bytes});
  const bool staged = (context.flags & wire::kFrameBulkIn) != 0;
  out->PutBytes(staged ? port_->BulkIn(context) : std::span<const std::byte>());
}

Status Session::LoadCall(ByteReader* in) {
  ApiContext* const context = pool_.Take();
  if (context == nullptr) return OutOfMemory("too many pending calls");
  context->pc = in->Get<std::uint64_t>();
  context->request_id = in->Get<std::uint64_t>();
  context->slot = in->Get<std::uint32_t>();
  context->lease = in->Get<std::uint32_t>();
  context->bulk_bytes = in->Get<std::uint64_t>();
  context->flags = in->Get<std::uint16_t>();
  context->answered = in->Get<std::uint8_t>() != 0;
  context->parsed = in->Get<std::uint8_t>() != 0;
  for (Handle*& handle : context->handles) {
    const auto id = in->Get<HandleId>();
    if (id == 0) continue;
    handle = state_->graph.Find(id);
    if (handle == nullptr) return Corrupt("pending call names a lost handle");
  }
  const auto family = in->Get<std::uint32_t>();
  for (std::uint32_t i = 0; i < family && in->ok(); ++i) {
    Handle* const handle = state_->graph.Find(in->Get<HandleId>());
    if (handle == nullptr) return Corrupt("pending call names a lost handle");
    context->family.push_back(handle);
  }
  context->scratch = in->Get<std::array<std::uint64_t, 4>>();
  context->result = in->Get<std::int32_t>();
  const std::span<const std::byte> reply = in->GetBytes();
  const std::span<const std::byte> frame = in->GetBytes();
  const std::span<const std::byte> bulk = in->GetBytes();
  if (!in->ok() || reply.size() > context->reply.size()) {
    return Corrupt("pending call ends early");
  }
  std::copy(reply.begin(), reply.end(), context->reply.begin());
  context->reply_bytes = static_cast<std::uint32_t>(reply.size());
  POS_RETURN_IF_ERROR(ValidateFrame(frame, cuda::Calls(), options_.ring)
                          .WithContext("pending call"));
  const std::span<std::byte> room =
      context->FrameBuffer(static_cast<std::uint32_t>(frame.size()));
  std::copy(frame.begin(), frame.end(), room.begin());
  front_end_->SetInfo(context);
  // What the frame says has just been checked.
  if (!front_end_->IsOfItsFrame(*context)) {
    return Corrupt("pending call: its slot or lease is not its frame's");
  }
  context->owned_bulk.assign(bulk.begin(), bulk.end());
  if (context->parsed) {
    worker_->pending().push_back(context);
  } else {
    parser_->waiting().push_back(context);
  }
  return {};
}

void Session::Save(ByteWriter* out) {
  out->Put(front_end_->next_pc());
  state_->Save(out);
  executor_->Save(state_->graph, out);
  out->Put(static_cast<std::uint64_t>(worker_->pending().size() +
                                      parser_->waiting().size()));
  for (const ApiContext* context : worker_->pending()) SaveCall(*context, out);
  for (const ApiContext* context : parser_->waiting()) SaveCall(*context, out);
}

std::uint64_t Session::TakenBytes(int device) const {
  std::uint64_t bytes =
      state_->blocks[static_cast<std::size_t>(device)].backed_bytes() +
      executor_->TakenBytes(device);
  // Reserved addresses lie in the same range and hold nothing of their own.
  for (const auto& [address, reservation] : state_->reservations) {
    if (reservation.device == device) bytes -= reservation.bytes;
  }
  // Taken when the call was parsed, made when it is carried out.
  for (const ApiContext* context : worker_->pending()) {
    if (static_cast<cuda::Op>(context->info->op) != cuda::Op::kPhysicalCreate) {
      continue;
    }
    const auto& args = context->Args<cuda::PhysicalCreateArgs>();
    if (args.device == device) bytes += args.bytes;
  }
  return bytes;
}

Status Session::Load(std::span<const std::byte> state) {
  ByteReader in(state);
  front_end_->set_next_pc(in.Get<std::uint64_t>());
  POS_RETURN_IF_ERROR(state_->Load(&in));
  POS_RETURN_IF_ERROR(executor_->Restore(&state_->graph, &in));
  const auto calls = in.Get<std::uint64_t>();
  pool_.SetUnbounded(true);
  for (std::uint64_t i = 0; i < calls && in.ok(); ++i) {
    POS_RETURN_IF_ERROR(LoadCall(&in));
  }
  pool_.SetUnbounded(false);
  if (!in.ok()) return Corrupt("session state ends early");
  return {};
}

}  // namespace pos
