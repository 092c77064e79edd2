// Engine: the inbox, the scheduler, the runner and the thread that turns them.
//
//   inbox -> Expire -> Schedule -> Launch -> Collect -> Commit -> events
//
// Any thread may Submit, Cancel or Stop; none of them waits for a step. The engine thread alone touches the scheduler and the blocks, and
// blocks in one place: on the inbox, when idle.

#ifndef QUIRE_ENGINE_ENGINE_H_
#define QUIRE_ENGINE_ENGINE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/memory_plan.h"
#include "engine/model_runner.h"
#include "scheduler/request.h"
#include "scheduler/scheduler.h"
#include "scheduler/token_event.h"

namespace quire {

// Takes the events of each step, in order. OnEvents is called on the engine thread and must not block; it may swap the vector's contents away
// (whatever it leaves there is cleared and its capacity reused).
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void OnEvents(std::vector<TokenEvent>& events) = 0;
  // The runner failed; every live request has had its kEnded event. Called once, last.
  virtual void OnEngineFailure(const absl::Status& status) = 0;
};

// A picture of the engine for metrics and status: written by the engine thread after each step, read by any thread without waiting.
struct EngineSnapshot {
  SchedulerStats scheduler;
  int32_t num_blocks = 0;
  uint64_t step_tokens = 0;        // rows computed so far, all steps
  absl::Duration schedule_time;    // spent so far, by phase of the loop
  absl::Duration compute_time;
  absl::Duration commit_time;
  absl::Time last_step;            // heartbeat: when a step was last committed
};

class Engine {
 public:
  // `sink` outlives the engine. The thread starts at once.
  Engine(const SchedulerOptions& options, int32_t max_waiting_requests, int64_t max_waiting_tokens,
         std::unique_ptr<ModelRunner> runner, EventSink* sink);
  ~Engine();  // Shutdown

  // Hands a request over. RESOURCE_EXHAUSTED at once when max_waiting_requests or max_waiting_tokens are waiting (the server adds the
  // delay of RetryDelay); UNAVAILABLE after Shutdown or a failure. On OK exactly one ending event follows (a request that could never run: kEnded, kFailed —
  // the server has checked the ranges before).
  absl::Status Submit(std::shared_ptr<const Request> request);

  // Ends a request with a kEnded event; unknown ids are ignored. Always gets in.
  void Cancel(RequestId id, Ending ending);

  // The server has found a stop string: the request ends without further events.
  void Stop(RequestId id);

  // Ends all requests with kEnded events (kShutdown: drain time-out) and goes on.
  void EndAll(Ending ending);

  // Ends all requests and joins the thread. Idempotent.
  void Shutdown();

  // Requests and tokens that wait: in the inbox or in the scheduler's queue.
  int32_t num_waiting() const;
  // An estimate of how long until a waiting place is free, from the measured rate of admissions; at least 10 ms, at most 60 s.
  absl::Duration RetryDelay() const;

  EngineSnapshot snapshot() const;
};

// Opens the model, makes the plan, loads the weights and allocates everything: what `quired` runs. Errors are the operator's: one line each.
struct LoadedModel {
  ModelConfig config;
  MemoryPlan plan;
  std::unique_ptr<ModelRunner> runner;
  std::string backend_description;
};
absl::StatusOr<LoadedModel> LoadModel(const EngineOptions& options);

}  // namespace quire

#endif  // QUIRE_ENGINE_ENGINE_H_
