// ModelRunner: computes a batch. Launch starts it, Collect waits for it and hands over what came out.
//
// On `cpu` and `ref` Launch computes at once; on `cuda` it returns while the device works. A test drives the engine
// with a fake one.
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

  // REQUIRES: batch.num_tokens <= max_num_batched_tokens; the sequences live until Collect returns.
  virtual absl::Status Launch(const Batch& batch) = 0;

  // The result of the batch launched last; valid until the next Launch. An error is the device's: nothing can go on.
  virtual absl::StatusOr<const StepResult*> Collect() = 0;
};

}  // namespace quire

#endif  // QUIRE_ENGINE_MODEL_RUNNER_H_
