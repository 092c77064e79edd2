// What the served model is, as GetModel and `quired plan` tell it.

#ifndef QUIRE_SERVER_MODEL_INFO_H_
#define QUIRE_SERVER_MODEL_INFO_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/memory_plan.h"
#include "engine/model_config.h"
#include "quire/v1/model.pb.h"

namespace quire {

v1::GetModelResponse DescribeModel(absl::string_view name, const ModelConfig& config, const MemoryPlan& plan,
                                   absl::string_view backend);

// What the model at `path` is called: `given`, of --served-model-name, or if that is empty the last part of the path,
// "." and "x/.." resolved. INVALID_ARGUMENT if no message, label or line could hold it: it must be UTF-8 without
// control characters.
absl::StatusOr<std::string> ServedName(const std::string& given, const std::string& path);

// The plan as lines for people.
std::string PlanText(const v1::GetModelResponse& model, const MemoryPlan& plan);
// The plan as one JSON object: GetModelResponse's names, numbers as numbers, and the bytes of each kind of memory. Of
// the cache also its groups of layers (`kv_groups`: kind, window in tokens or 0, layers), the bytes of a block, and
// what a sequence of max_model_len tokens keeps.
std::string PlanJson(const v1::GetModelResponse& model, const MemoryPlan& plan);

}  // namespace quire

#endif  // QUIRE_SERVER_MODEL_INFO_H_
