// ModelRunner: computes batches. Launch starts one, Collect waits for it and hands over what came out.
//
// On `cpu` and `ref` Launch computes at once. On `cuda` it returns while the device works, and the next batch may be
// launched before this one is collected: SchedulerOptions::run_ahead says how many. A chunk that takes_drawn begins
// with a token that only the device has seen. A test drives the engine with a fake one.
//
// Thread: the engine thread.

#ifndef QUIRE_ENGINE_MODEL_RUNNER_H_
#define QUIRE_ENGINE_MODEL_RUNNER_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/batch.h"

namespace quire {

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  // REQUIRES: batch.num_tokens <= max_num_batched_tokens; at most run_ahead batches are not collected; the
  // sequences live until this one is.
  virtual absl::Status Launch(const Batch& batch) = 0;

  // The result of the oldest batch that is not collected; valid until the next Collect or, without run-ahead, Launch.
  // An error is the device's: nothing can go on.
  virtual absl::StatusOr<const StepResult*> Collect() = 0;
};

}  // namespace quire

#endif  // QUIRE_ENGINE_MODEL_RUNNER_H_
