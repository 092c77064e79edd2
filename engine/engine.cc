#include "engine/engine.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quire {

Engine::Engine(const SchedulerOptions& options, int32_t max_waiting_requests, int64_t max_waiting_tokens,
               std::unique_ptr<ModelRunner> runner, EventSink* sink)
    : inbox_(max_waiting_requests, max_waiting_tokens), sink_(sink), runner_(std::move(runner)), scheduler_(options) {
  progress_.num_blocks = options.num_blocks;
  progress_.last_step = absl::UnixEpoch();
  progress_.scheduler = scheduler_.stats();
  snapshot_ = progress_;
  thread_ = std::thread([this] { Run(); });
}

Engine::~Engine() { Shutdown(); }

absl::Status Engine::Submit(std::shared_ptr<const Request> request) { return inbox_.Submit(std::move(request)); }

void Engine::Cancel(RequestId id, Ending ending) {
  inbox_.Put({.kind = CommandKind::kCancel, .ending = ending, .id = id});
}

void Engine::Stop(RequestId id, uint32_t index) { inbox_.Put({.kind = CommandKind::kStop, .id = id, .index = index}); }

void Engine::Pause(RequestId id) { inbox_.Put({.kind = CommandKind::kPause, .id = id}); }

void Engine::Resume(RequestId id) { inbox_.Put({.kind = CommandKind::kResume, .id = id}); }

void Engine::EndAll(Ending ending) { inbox_.Put({.kind = CommandKind::kEndAll, .ending = ending}); }

void Engine::Shutdown() {
  inbox_.Close(absl::UnavailableError("the engine is shut down"));
  const std::lock_guard lock(shutdown_mutex_);
  if (thread_.joinable()) thread_.join();
}

int32_t Engine::num_waiting() const { return inbox_.num_waiting() + num_preempted_.load(std::memory_order_relaxed); }

EngineSnapshot Engine::snapshot() const {
  const bool has_commands = inbox_.has_commands();
  const std::lock_guard lock(snapshot_mutex_);
  EngineSnapshot snapshot = snapshot_;
  snapshot.has_work |= has_commands;
  return snapshot;
}

// ---- The engine thread ----

void Engine::Run() {
  absl::Status status;
  while (status.ok() && TakeInbox()) {
    status = Step();
    Deliver();
  }
  Finish(status);
}

bool Engine::TakeInbox() {
  const absl::Time wait_until = is_idle_ ? scheduler_.NextDeadline() : absl::InfinitePast();
  if (!inbox_.Take(wait_until, commands_)) return false;
  CarryOut(commands_);
  return true;
}

absl::Status Engine::Step() {
  const absl::Time begin = absl::Now();
  Batch& batch = batches_[num_in_flight_];
  scheduler_.Expire(begin, events_);
  scheduler_.Schedule(begin, batch, events_);
  ++progress_.turns;
  is_idle_ = batch.empty() && num_in_flight_ == 0;
  const bool was_idle = !std::exchange(progress_.has_work, !is_idle_);
  if (is_idle_) return absl::OkStatus();
  if (was_idle || !events_.empty()) Deliver();  // who starts or ends here need not wait for the step

  const absl::Time scheduled = absl::Now();
  progress_.schedule_time += scheduled - begin;
  if (!batch.empty()) {
    if (absl::Status status = runner_->Launch(batch); !status.ok()) return status;
    progress_.compute_time += absl::Now() - scheduled;
    if (++num_in_flight_ <= scheduler_.options().run_ahead) return absl::OkStatus();
  }
  return CollectOldest();
}

absl::Status Engine::CollectOldest() {
  const absl::Time begin = absl::Now();
  const absl::StatusOr<const StepResult*> result = runner_->Collect();
  if (!result.ok()) return result.status();

  const absl::Time computed = absl::Now();
  scheduler_.Commit(computed, batches_[0], **result, events_);
  progress_.last_step = absl::Now();
  progress_.step_tokens += batches_[0].num_tokens;
  progress_.step_sizes.Add(batches_[0].num_tokens);
  progress_.compute_time += computed - begin;
  progress_.commit_time += progress_.last_step - computed;
  std::swap(batches_[0], batches_[1]);
  --num_in_flight_;
  return absl::OkStatus();
}

void Engine::Finish(absl::Status status) {
  // What is under way may still be told to those who get it.
  while (status.ok() && num_in_flight_ > 0) status = CollectOldest();
  if (!status.ok()) inbox_.Close(absl::UnavailableError(absl::StrCat("the engine failed: ", status.message())));
  inbox_.TakeRest(commands_);
  CarryOut(commands_);
  scheduler_.EndAll(status.ok() ? Ending::kShutdown : Ending::kEngineFailed, events_);
  progress_.has_work = false;
  Deliver();
  if (!status.ok()) sink_->OnEngineFailure(status);
}

void Engine::CarryOut(std::vector<Command>& commands) {
  const absl::Time now = commands.empty() ? absl::Time() : absl::Now();
  for (Command& command : commands) {
    switch (command.kind) {
      case CommandKind::kAdd:
        unstarted_.insert(command.request->id);
        scheduler_.Submit(std::move(command.request), now, events_);
        break;
      case CommandKind::kCancel:
        scheduler_.End(command.id, command.ending, events_);
        break;
      case CommandKind::kStop:
        scheduler_.Drop(command.id, command.index);
        num_left_ += static_cast<int32_t>(unstarted_.erase(command.id));
        break;
      case CommandKind::kPause:
        scheduler_.Pause(command.id);
        break;
      case CommandKind::kResume:
        scheduler_.Resume(command.id);
        break;
      case CommandKind::kEndAll:
        scheduler_.EndAll(command.ending, events_);
        break;
    }
  }
  commands.clear();
}

void Engine::Deliver() {
  CountLeavers();
  if (KvEventLog* const kv_events = scheduler_.options().kv_events) kv_events->Flush();
  progress_.scheduler = scheduler_.stats();
  progress_.retry_delay = scheduler_.RetryDelay(absl::Now());
  num_preempted_.store(progress_.scheduler.num_waiting - static_cast<int32_t>(unstarted_.size()),
                       std::memory_order_relaxed);
  {
    const std::lock_guard lock(snapshot_mutex_);
    snapshot_ = progress_;
  }
  if (events_.empty()) return;
  sink_->OnEvents(events_);
  events_.clear();
}

void Engine::CountLeavers() {
  absl::Time now;
  for (TokenEvent& event : events_) {
    if (event.kind == EventKind::kToken) continue;
    if (event.kind == EventKind::kEnded && event.time == absl::Time()) {
      if (now == absl::Time()) now = absl::Now();
      event.time = now;
    }
    if (!unstarted_.empty()) num_left_ += static_cast<int32_t>(unstarted_.erase(event.request_id));
  }
  if (num_left_ > 0) inbox_.OnLeft(num_left_);
  num_left_ = 0;
}

}  // namespace quire
