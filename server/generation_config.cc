#include "server/generation_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/gguf_model.h"
#include "engine/json_text.h"

namespace quire {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kLargestFile = 1 << 20;  // bytes; real ones have a few hundred

absl::Status Invalid(absl::string_view file, absl::string_view key, const Json& found, absl::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", key, ": found ", Shown(found), ", allowed: ", allowed));
}

// A JSON object; an empty text is an empty one.
absl::StatusOr<Json> ParseObject(absl::string_view text, absl::string_view file) {
  if (text.empty()) return Json::object();
  return ParseJsonObject(text, file);
}

// Sets `target` from a number of the object, if it is there and not null.
struct Range {
  double min, max;
  bool above_min;  // min itself is not allowed
  absl::string_view text;
};
absl::Status ReadNumber(const Json& json, const char* key, const Range& range, double& target) {
  if (!json.contains(key) || json[key].is_null()) return absl::OkStatus();
  const Json& found = json[key];
  const double value = found.is_number() ? found.get<double>() : std::numeric_limits<double>::quiet_NaN();
  const bool inside = value <= range.max && (range.above_min ? value > range.min : value >= range.min);
  if (!inside) return Invalid("generation_config.json", key, found, range.text);
  target = value;
  return absl::OkStatus();
}

absl::Status ReadSampling(const Json& json, SamplingParams& sampling) {
  double temperature = sampling.temperature, top_k = sampling.top_k, top_p = sampling.top_p, min_p = sampling.min_p;
  double repetition_penalty = sampling.repetition_penalty, frequency_penalty = sampling.frequency_penalty,
         presence_penalty = sampling.presence_penalty;
  for (const absl::Status& status :
       {ReadNumber(json, "temperature", {0, 100, false, "0 to 100"}, temperature),
        ReadNumber(json, "top_k", {0, 4294967295.0, false, "a whole number from 0 (off) on"}, top_k),
        ReadNumber(json, "top_p", {0, 1, true, "above 0 to 1"}, top_p),
        ReadNumber(json, "min_p", {0, 1, false, "0 to 1"}, min_p),
        ReadNumber(json, "repetition_penalty", {0, 100, true, "above 0 to 100"}, repetition_penalty),
        ReadNumber(json, "frequency_penalty", {-2, 2, false, "-2 to 2"}, frequency_penalty),
        ReadNumber(json, "presence_penalty", {-2, 2, false, "-2 to 2"}, presence_penalty)}) {
    if (!status.ok()) return status;
  }
  if (top_k != std::floor(top_k))
    return Invalid("generation_config.json", "top_k", json["top_k"], "a whole number from 0 on");
  // do_sample is not read: a temperature says whether to sample, and transformers writes files without it.
  sampling.temperature = static_cast<float>(temperature);
  sampling.top_k = static_cast<uint32_t>(top_k);
  sampling.top_p = static_cast<float>(top_p);
  sampling.min_p = static_cast<float>(min_p);
  sampling.repetition_penalty = static_cast<float>(repetition_penalty);
  sampling.frequency_penalty = static_cast<float>(frequency_penalty);
  sampling.presence_penalty = static_cast<float>(presence_penalty);
  return absl::OkStatus();
}

// eos_token_id: absent, null, an id or a list of ids. nullopt when it is absent or null.
absl::StatusOr<std::optional<std::vector<uint32_t>>> ReadEos(const Json& json, absl::string_view file,
                                                             uint32_t vocab_size) {
  if (!json.contains("eos_token_id") || json["eos_token_id"].is_null()) return std::optional<std::vector<uint32_t>>();
  const Json& found = json["eos_token_id"];
  const Json list = found.is_array() ? found : Json::array({found});
  std::vector<uint32_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= vocab_size) {
      return Invalid(file, "eos_token_id", id, absl::StrCat("ids from 0 to ", vocab_size - 1));
    }
    ids.push_back(id.get<uint32_t>());
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return std::optional(std::move(ids));
}

// The file's text; empty if there is no such file.
absl::StatusOr<std::string> ReadIfThere(const std::string& path) {
  absl::StatusOr<std::string> text = ReadTextFile(path, kLargestFile);
  if (absl::IsNotFound(text.status())) return std::string();
  return text;
}

}  // namespace

absl::StatusOr<GenerationConfig> ParseGenerationConfig(absl::string_view generation_config, absl::string_view config,
                                                       uint32_t vocab_size) {
  const absl::StatusOr<Json> own = ParseObject(generation_config, "generation_config.json");
  if (!own.ok()) return own.status();
  const absl::StatusOr<Json> model = ParseObject(config, "config.json");
  if (!model.ok()) return model.status();

  GenerationConfig result;
  if (const absl::Status status = ReadSampling(*own, result.sampling); !status.ok()) return status;
  auto eos = ReadEos(*own, "generation_config.json", vocab_size);
  if (eos.ok() && !eos->has_value()) eos = ReadEos(*model, "config.json", vocab_size);
  if (!eos.ok()) return eos.status();
  if (eos->has_value()) result.eos_ids = **std::move(eos);
  return result;
}

absl::StatusOr<GenerationConfig> LoadGenerationConfig(const std::string& directory, bool use_generation_config,
                                                      uint32_t vocab_size) {
  absl::StatusOr<std::string> own = std::string();
  if (use_generation_config && !IsGgufPath(directory)) own = ReadIfThere(directory + "/generation_config.json");
  if (!own.ok()) return own.status();
  std::string name;
  const absl::StatusOr<std::string> model =
      IsGgufPath(directory) ? ReadConfigText(directory, name) : ReadIfThere(directory + "/config.json");
  if (!model.ok()) return model.status();
  return ParseGenerationConfig(*own, *model, vocab_size);
}

}  // namespace quire
