// LoadModel: from a directory and flags to a runner that is ready for its first step.

#ifndef QUIRE_ENGINE_LOAD_MODEL_H_
#define QUIRE_ENGINE_LOAD_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/memory_plan.h"
#include "engine/model_config.h"
#include "engine/model_runner.h"
#include "kernels/backend.h"

namespace quire {

// Opens the model, makes the plan, loads the weights and allocates everything: what `quired` runs. Errors are the
// operator's: one line each.
struct LoadedModel {
  ModelConfig config;
  MemoryPlan plan;
  std::unique_ptr<ModelRunner> runner;
  std::string backend_description;
};
// `progress` is told the bytes of weights loaded so far, of plan.weight_bytes.
using LoadModelProgress = std::function<void(uint64_t bytes, uint64_t of_bytes)>;
absl::StatusOr<LoadedModel> LoadModel(const EngineOptions& options, const LoadModelProgress& progress = nullptr);
// The same on a backend that is there already.
absl::StatusOr<LoadedModel> LoadModel(const EngineOptions& options, std::unique_ptr<Backend> backend,
                                      const LoadModelProgress& progress = nullptr);

}  // namespace quire

#endif  // QUIRE_ENGINE_LOAD_MODEL_H_
