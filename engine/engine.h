// Engine: the inbox, the scheduler, the runner and the thread that turns them.
//
//   inbox -> Expire -> Schedule -> Launch -> Collect (previous) -> Commit -> events
//
// Where the device works by itself (SchedulerOptions::run_ahead) the host schedules and launches a batch while the one
// before it runs, and collects that one then; else it collects what it has just launched. The loop is the same.
//
// Any thread may Submit, Cancel or Stop; none of them waits for a step. The engine thread alone touches the scheduler
// and the blocks, and blocks in one place: on the inbox, when nothing can run.

#ifndef QUIRE_ENGINE_ENGINE_H_
#define QUIRE_ENGINE_ENGINE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/inbox.h"
#include "engine/load_model.h"
#include "engine/memory_plan.h"
#include "engine/model_runner.h"
#include "scheduler/batch.h"
#include "scheduler/request.h"
#include "scheduler/scheduler.h"
#include "scheduler/token_event.h"

namespace quire {

// Takes the events, in order: before a step those of its start (who starts, who is cancelled or expired), after it the
// tokens. OnEvents is called on the engine thread and must not block; it may swap the vector's contents away (whatever
// it leaves there is cleared and its capacity reused). It may Submit, Cancel and Stop; it must not Shutdown.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void OnEvents(std::vector<TokenEvent>& events) = 0;
  // The runner failed; every live request has had its kEnded event. Called once, last.
  virtual void OnEngineFailure(const absl::Status& status) = 0;
};

// Steps by the number of rows that they computed, in vLLM's buckets of it.
struct StepSizes {
  static constexpr std::array<int32_t, 13> kBounds = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

  std::array<uint64_t, kBounds.size() + 1> counts{};  // up to each bound, above the one before; the last: above all

  void Add(int32_t num_rows) { ++counts[std::lower_bound(kBounds.begin(), kBounds.end(), num_rows) - kBounds.begin()]; }
};

// A picture of the engine for metrics and status: written by the engine thread after each step and before
// any events go out; read by any thread without waiting for a step.
struct EngineSnapshot {
  SchedulerStats scheduler;
  int32_t num_blocks = 0;
  uint64_t step_tokens = 0;  // rows computed so far, all steps
  StepSizes step_sizes;
  absl::Duration schedule_time;  // spent so far, by phase of the loop
  absl::Duration compute_time;   // launching, and waiting for the device
  absl::Duration commit_time;
  absl::Time last_step;        // when one was last committed; the epoch before the first
  absl::Duration retry_delay;  // the estimate until one more waiting request is admitted
  uint64_t turns = 0;          // heartbeat: of the loop so far
  bool has_work = false;       // the loop computes a step, or has not taken yet what others want of it
};

class Engine {
 public:
  // `sink` outlives the engine. The thread starts at once.
  Engine(const SchedulerOptions& options, int32_t max_waiting_requests, int64_t max_waiting_tokens,
         std::unique_ptr<ModelRunner> runner, EventSink* sink);
  ~Engine();  // Shutdown

  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Hands a request over. RESOURCE_EXHAUSTED at once when max_waiting_requests wait (the server adds the delay of
  // RetryDelay); UNAVAILABLE after Shutdown or a failure. On OK exactly one ending event follows, unless Stop takes its
  // place: kEnded with kRefused or kDeadlineUnreachable if the scheduler will not have it, with kFailed if it could
  // never run (the server has checked the ranges before).
  absl::Status Submit(std::shared_ptr<const Request> request);

  // Ends a request with a kEnded event; unknown ids are ignored. Always gets in.
  void Cancel(RequestId id, Ending ending);

  // The server has found a stop string: this output of the request ends without further events.
  void Stop(RequestId id, uint32_t index);

  // The client of a request does not read, or does again: between the two the request does not run. Unknown ids are
  // ignored.
  void Pause(RequestId id);
  void Resume(RequestId id);

  // Ends all requests with kEnded events (kShutdown: drain time-out) and goes on.
  void EndAll(Ending ending);

  // Ends all requests and joins the thread. Idempotent. Not from the sink.
  void Shutdown();

  // Requests that wait: in the inbox or in the scheduler's queue, preempted ones among them.
  int32_t num_waiting() const;
  // An estimate of how long until a waiting place is free; at least 10 ms, at most 60 s.
  absl::Duration RetryDelay() const { return snapshot().retry_delay; }

  EngineSnapshot snapshot() const;

 private:
  // The engine thread.
  void Run();
  // Carries out what others asked for; waits for it when the last batch was empty. False when the engine is to end.
  bool TakeInbox();
  // One turn: launches a batch if anything can run, collects one if it is time. An error is the device's.
  absl::Status Step();
  // Waits for the oldest batch in flight and takes in what it brought.
  absl::Status CollectOldest();
  // Ends what is left; tells the sink if `status` is an error.
  void Finish(absl::Status status);

  void CarryOut(std::vector<Command>& commands);
  // Publishes the snapshot, then hands the events to the sink.
  void Deliver();
  // Tells the inbox how many wait no longer by the events of this step.
  void CountLeavers();

  Inbox inbox_;
  EventSink* const sink_;

  mutable std::mutex snapshot_mutex_;
  EngineSnapshot snapshot_;                // guarded by snapshot_mutex_
  std::atomic<int32_t> num_preempted_{0};  // waiting again

  // The engine thread's own.
  std::unique_ptr<ModelRunner> runner_;
  Scheduler scheduler_;
  std::vector<Command> commands_;
  // Batches in flight, the oldest first, and behind them the one that is being made.
  std::array<Batch, 2> batches_;
  int32_t num_in_flight_ = 0;
  bool is_idle_ = true;  // nothing can run until somebody says so or a deadline passes
  std::vector<TokenEvent> events_;
  EngineSnapshot progress_;                   // what the next snapshot will say
  absl::flat_hash_set<RequestId> unstarted_;  // requests taken from the inbox and not yet admitted
  int32_t num_left_ = 0;                      // who ceased to wait since the inbox was told last

  std::mutex shutdown_mutex_;  // one thread joins
  std::thread thread_;         // last: starts when all else is there
};

}  // namespace quire

#endif  // QUIRE_ENGINE_ENGINE_H_
