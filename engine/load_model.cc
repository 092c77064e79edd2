#include "engine/load_model.h"

#include <utility>

#include "engine/backend_model_runner.h"
#include "engine/checkpoint.h"
#include "engine/weights.h"
#include "kernels/backend.h"

namespace quire {
namespace {

absl::StatusOr<Weights> OpenWeights(const ModelConfig& config, DType dtype, const EngineOptions& options,
                                    Backend& backend) {
  if (options.load_format == LoadFormat::kDummy) return DummyWeights(config, dtype, options.seed, backend);
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(options.model);
  if (!checkpoint.ok()) return checkpoint.status();
  if (absl::Status status = CheckTensors(config, *checkpoint); !status.ok()) return status;
  return LoadWeights(config, dtype, *checkpoint, backend);
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const EngineOptions& options) {
  absl::StatusOr<ModelConfig> config = LoadModelConfig(options.model);
  if (!config.ok()) return config.status();
  absl::StatusOr<std::unique_ptr<Backend>> backend = CreateBackend(options.backend);
  if (!backend.ok()) return backend.status();
  absl::StatusOr<MemoryPlan> plan = MakeMemoryPlan(*config, options, **backend);
  if (!plan.ok()) return plan.status();
  absl::StatusOr<Weights> weights = OpenWeights(*config, plan->dtype, options, **backend);
  if (!weights.ok()) return weights.status();

  LoadedModel loaded{
      .config = *config, .plan = *plan, .runner = nullptr, .backend_description = (*backend)->Description()};
  absl::StatusOr<std::unique_ptr<BackendModelRunner>> runner =
      BackendModelRunner::Create(*config, *plan, *std::move(weights), *std::move(backend));
  if (!runner.ok()) return runner.status();
  loaded.runner = *std::move(runner);
  return loaded;
}

}  // namespace quire
