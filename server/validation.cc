#include "server/validation.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/errors.h"

namespace quire {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxTenantBytes = 128;
constexpr size_t kMaxSaltBytes = 1024;
constexpr uint32_t kMaxOutputs = 16;
constexpr int kMaxStops = 16;
constexpr size_t kMaxStopBytes = 256;
constexpr int kMaxStopIds = 128;
constexpr size_t kMaxLogitBias = 1024;
constexpr uint32_t kMaxLogprobs = 20;

bool IsPrintableAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
}

// Collects what is wrong, in the order of the fields.
class Violations {
 public:
  void Add(absl::string_view field, absl::string_view description) {
    found_.push_back({std::string(field), std::string(description)});
  }

  // A number in [min, max]; NaN never is.
  template <typename T>
  void RequireRange(absl::string_view field, T value, std::type_identity_t<T> min, std::type_identity_t<T> max) {
    if (!(value >= min && value <= max)) Add(field, absl::StrCat("is ", value, "; allowed: ", min, " to ", max));
  }
  // A number in (min, max].
  void RequireAbove(absl::string_view field, double value, double min, double max) {
    if (!(value > min && value <= max)) Add(field, absl::StrCat("is ", value, "; allowed: above ", min, ", to ", max));
  }
  void RequireId(absl::string_view field, uint32_t id, uint32_t vocab_size) {
    if (id >= vocab_size) Add(field, absl::StrCat("is ", id, "; allowed: token ids from 0 to ", vocab_size - 1));
  }
  // The first id that the vocabulary lacks, by its index.
  void RequireIds(absl::string_view field, const google::protobuf::RepeatedField<uint32_t>& ids, uint32_t vocab_size) {
    for (int i = 0; i < ids.size(); ++i) {
      if (ids[i] >= vocab_size) return RequireId(absl::StrCat(field, "[", i, "]"), ids[i], vocab_size);
    }
  }

  absl::Status status() const { return found_.empty() ? absl::OkStatus() : InvalidFields(found_); }

 private:
  std::vector<FieldViolation> found_;
};

std::string PromptLengthError(size_t num_tokens, const RequestLimits& limits) {
  return absl::StrCat("has ", num_tokens, " tokens; allowed: 1 to ", limits.max_model_len - 1,
                      ", one less than the longest sequence of this server");
}

void CheckPrompt(const v1::GenerateRequest& request, const RequestLimits& limits, Violations& violations) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::PROMPT_NOT_SET:
      return violations.Add("prompt", "is absent; allowed: text or tokens");
    case v1::GenerateRequest::kText:
      if (request.text().empty()) {
        violations.Add("text", "is empty; a prompt has at least one token");
      } else if (request.text().size() > limits.max_text_bytes) {
        violations.Add("text", absl::StrCat("has ", request.text().size(), " bytes; more than ", limits.max_text_bytes,
                                            " cannot fit the ", limits.max_model_len, " tokens of this server"));
      }
      return;
    case v1::GenerateRequest::kTokens: {
      const size_t num_tokens = static_cast<size_t>(request.tokens().ids_size());
      if (num_tokens == 0 || num_tokens >= limits.max_model_len) {
        return violations.Add("tokens.ids", PromptLengthError(num_tokens, limits));
      }
      return violations.RequireIds("tokens.ids", request.tokens().ids(), limits.vocab_size);
    }
    case v1::GenerateRequest::kChat:
      return;  // CheckSupported
  }
}

void CheckSampling(const v1::SamplingParams& sampling, const RequestLimits& limits, Violations& violations) {
  if (sampling.has_temperature()) violations.RequireRange("sampling.temperature", sampling.temperature(), 0, 100);
  if (sampling.has_top_p()) violations.RequireAbove("sampling.top_p", sampling.top_p(), 0, 1);
  if (sampling.has_min_p()) violations.RequireRange("sampling.min_p", sampling.min_p(), 0, 1);
  if (sampling.has_repetition_penalty()) {
    violations.RequireAbove("sampling.repetition_penalty", sampling.repetition_penalty(), 0, 100);
  }
  if (sampling.has_frequency_penalty()) {
    violations.RequireRange("sampling.frequency_penalty", sampling.frequency_penalty(), -2, 2);
  }
  if (sampling.has_presence_penalty()) {
    violations.RequireRange("sampling.presence_penalty", sampling.presence_penalty(), -2, 2);
  }
  if (sampling.logit_bias().size() > kMaxLogitBias) {
    violations.Add("sampling.logit_bias",
                   absl::StrCat("has ", sampling.logit_bias().size(), " entries; allowed: at most ", kMaxLogitBias));
  } else {
    for (const auto& [id, bias] : sampling.logit_bias()) {
      const std::string field = absl::StrCat("sampling.logit_bias[", id, "]");
      if (id >= limits.vocab_size) {
        violations.Add(field, absl::StrCat("names token ", id, "; allowed: 0 to ", limits.vocab_size - 1));
      } else {
        violations.RequireRange(field, bias, -100, 100);
      }
    }
  }
  if (sampling.allowed_token_ids_size() > static_cast<int64_t>(limits.vocab_size)) {
    violations.Add("sampling.allowed_token_ids",
                   absl::StrCat("has ", sampling.allowed_token_ids_size(), " ids; allowed: at most the vocabulary's ",
                                limits.vocab_size));
  } else {
    violations.RequireIds("sampling.allowed_token_ids", sampling.allowed_token_ids(), limits.vocab_size);
  }
}

void CheckStopping(const v1::StoppingCriteria& stopping, const RequestLimits& limits, Violations& violations) {
  if (stopping.has_max_tokens() && stopping.max_tokens() == 0) {
    violations.Add("stopping.max_tokens", "is 0; allowed: 1 or more, or absent");
  } else if (stopping.has_max_tokens() && stopping.min_tokens() > stopping.max_tokens()) {
    violations.Add("stopping.min_tokens", absl::StrCat("is ", stopping.min_tokens(), "; allowed: at most max_tokens, ",
                                                       stopping.max_tokens()));
  }
  if (stopping.stop_size() > kMaxStops) {
    violations.Add("stopping.stop",
                   absl::StrCat("has ", stopping.stop_size(), " strings; allowed: at most ", kMaxStops));
  } else {
    for (int i = 0; i < stopping.stop_size(); ++i) {
      const size_t size = stopping.stop(i).size();
      if (size >= 1 && size <= kMaxStopBytes) continue;
      violations.Add(absl::StrCat("stopping.stop[", i, "]"),
                     absl::StrCat("has ", size, " bytes; allowed: 1 to ", kMaxStopBytes));
    }
  }
  if (stopping.stop_token_ids_size() > kMaxStopIds) {
    violations.Add("stopping.stop_token_ids",
                   absl::StrCat("has ", stopping.stop_token_ids_size(), " ids; allowed: at most ", kMaxStopIds));
  } else {
    violations.RequireIds("stopping.stop_token_ids", stopping.stop_token_ids(), limits.vocab_size);
  }
}

void CheckOutput(const v1::OutputOptions& output, const RequestLimits& limits, Violations& violations) {
  const uint32_t most = std::min(kMaxLogprobs, limits.vocab_size);
  if (output.has_logprobs()) violations.RequireRange("output.logprobs", output.logprobs(), 0, most);
  if (output.has_prompt_logprobs())
    violations.RequireRange("output.prompt_logprobs", output.prompt_logprobs(), 0, most);
}

void CheckDuration(absl::string_view field, const google::protobuf::Duration& duration, Violations& violations) {
  constexpr int64_t kMaxSeconds = 315576000000;  // google/protobuf/duration.proto
  const bool valid = duration.seconds() >= 0 && duration.seconds() <= kMaxSeconds && duration.nanos() >= 0 &&
                     duration.nanos() < 1000000000;
  if (!valid) violations.Add(field, "is negative or no valid duration; allowed: 0s or more");
}

void CheckScheduling(const v1::SchedulingOptions& scheduling, const RequestLimits& limits, Violations& violations) {
  if (scheduling.priority() != 0 && !limits.has_priorities) {
    violations.Add("scheduling.priority", absl::StrCat("is ", scheduling.priority(),
                                                       "; allowed: 0, as this server does not schedule by priority"));
  }
  if (scheduling.tenant().size() > kMaxTenantBytes || !IsPrintableAscii(scheduling.tenant())) {
    violations.Add("scheduling.tenant", "allowed: at most 128 printable ASCII characters");
  }
  if (scheduling.has_max_queue_time()) {
    CheckDuration("scheduling.max_queue_time", scheduling.max_queue_time(), violations);
  }
  if (scheduling.has_time_limit()) CheckDuration("scheduling.time_limit", scheduling.time_limit(), violations);
}

void CheckRest(const v1::GenerateRequest& request, Violations& violations) {
  if (request.cache().salt().size() > kMaxSaltBytes) {
    violations.Add("cache.salt",
                   absl::StrCat("has ", request.cache().salt().size(), " bytes; allowed: at most ", kMaxSaltBytes));
  }
  if (request.has_n()) violations.RequireRange("n", request.n(), 1, kMaxOutputs);
}

// What is in range and this build cannot do.
absl::Status CheckSupported(const v1::GenerateRequest& request) {
  const bool no_constraint = request.constraint_case() == v1::GenerateRequest::CONSTRAINT_NOT_SET ||
                             (request.constraint_case() == v1::GenerateRequest::kJsonObject && !request.json_object());
  const std::pair<absl::string_view, bool> kUnsupported[] = {
      {"chat", request.prompt_case() == v1::GenerateRequest::kChat},
      {"constraint", !no_constraint},
  };
  for (const auto& [field, asked] : kUnsupported) {
    if (asked) return NotSupported(field, absl::StrCat(field, ": this server cannot do that yet; leave the field out"));
  }
  return absl::OkStatus();
}

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

SamplingParams EffectiveSampling(const v1::SamplingParams& asked, const SamplingParams& defaults) {
  SamplingParams sampling = defaults;
  if (asked.has_temperature()) sampling.temperature = asked.temperature();
  if (asked.has_top_k()) sampling.top_k = asked.top_k();
  if (asked.has_top_p()) sampling.top_p = asked.top_p();
  if (asked.has_min_p()) sampling.min_p = asked.min_p();
  if (asked.has_repetition_penalty()) sampling.repetition_penalty = asked.repetition_penalty();
  if (asked.has_frequency_penalty()) sampling.frequency_penalty = asked.frequency_penalty();
  if (asked.has_presence_penalty()) sampling.presence_penalty = asked.presence_penalty();
  sampling.seed = asked.seed();
  return sampling;
}

// Sorts, and keeps one of each.
void MakeSet(std::vector<uint32_t>& ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

GenerateJob MakeJob(const v1::GenerateRequest& request, const RequestLimits& limits) {
  const v1::StoppingCriteria& stopping = request.stopping();
  const v1::OutputOptions& output = request.output();
  GenerateJob job;
  job.request_id = request.request_id();
  if (request.prompt_case() == v1::GenerateRequest::kText) {
    job.text = request.text();
  } else {
    job.prompt.assign(request.tokens().ids().begin(), request.tokens().ids().end());
  }
  job.sampling = EffectiveSampling(request.sampling(), limits.default_sampling);
  for (const auto& [id, bias] : request.sampling().logit_bias()) job.logit_bias.push_back({id, bias});
  std::sort(job.logit_bias.begin(), job.logit_bias.end(),
            [](const TokenBias& a, const TokenBias& b) { return a.id < b.id; });
  job.allowed_ids.assign(request.sampling().allowed_token_ids().begin(), request.sampling().allowed_token_ids().end());
  MakeSet(job.allowed_ids);
  job.has_seed = request.sampling().has_seed();
  job.num_outputs = request.has_n() ? request.n() : 1;
  if (stopping.has_max_tokens()) job.max_tokens = stopping.max_tokens();
  job.min_tokens = stopping.min_tokens();
  job.stop_ids.assign(stopping.stop_token_ids().begin(), stopping.stop_token_ids().end());
  if (!stopping.ignore_eos()) job.stop_ids.insert(job.stop_ids.end(), limits.eos_ids.begin(), limits.eos_ids.end());
  MakeSet(job.stop_ids);
  job.stop.assign(stopping.stop().begin(), stopping.stop().end());
  job.include_stop = stopping.include_stop();
  job.wants_text = !output.has_text() || output.text();
  job.wants_token_ids = !output.has_token_ids() || output.token_ids();
  job.skip_special_tokens = !output.has_skip_special_tokens() || output.skip_special_tokens();
  if (output.has_logprobs()) job.num_logprobs = output.logprobs();
  if (output.has_prompt_logprobs()) job.num_prompt_logprobs = output.prompt_logprobs();
  const v1::SchedulingOptions& scheduling = request.scheduling();
  job.priority = scheduling.priority();
  job.tenant = scheduling.tenant();
  if (scheduling.has_max_queue_time()) job.max_queue_time = ToDuration(scheduling.max_queue_time());
  if (scheduling.has_time_limit()) job.time_limit = ToDuration(scheduling.time_limit());
  job.cache_salt = request.cache().salt();
  job.bypass_prefix_cache = request.cache().bypass_prefix_cache();
  return job;
}

}  // namespace

absl::StatusOr<GenerateJob> ValidateGenerate(const v1::GenerateRequest& request, const RequestLimits& limits) {
  if (!request.model().empty() && request.model() != limits.model_name) {
    return absl::NotFoundError(absl::StrCat("model: this server has no such model; it serves ", limits.model_name));
  }
  Violations violations;
  if (request.request_id().size() > kMaxRequestIdBytes || !IsPrintableAscii(request.request_id())) {
    violations.Add("request_id", "allowed: at most 128 printable ASCII characters");
  }
  CheckPrompt(request, limits, violations);
  CheckSampling(request.sampling(), limits, violations);
  CheckStopping(request.stopping(), limits, violations);
  CheckOutput(request.output(), limits, violations);
  CheckScheduling(request.scheduling(), limits, violations);
  CheckRest(request, violations);
  if (const absl::Status status = violations.status(); !status.ok()) return status;
  if (const absl::Status status = CheckSupported(request); !status.ok()) return status;
  GenerateJob job = MakeJob(request, limits);
  // Below min_tokens a stop id cannot be drawn: something else must be there.
  if (job.min_tokens > 1 && !job.allowed_ids.empty() &&
      std::includes(job.stop_ids.begin(), job.stop_ids.end(), job.allowed_ids.begin(), job.allowed_ids.end())) {
    return InvalidField("sampling.allowed_token_ids",
                        "allows only tokens that end the output, which stopping.min_tokens forbids at first");
  }
  return job;
}

absl::Status ValidatePromptLength(absl::string_view field, size_t num_tokens, const RequestLimits& limits) {
  if (num_tokens >= 1 && num_tokens < limits.max_model_len) return absl::OkStatus();
  return InvalidField(field, PromptLengthError(num_tokens, limits));
}

absl::Status ValidateTokenIds(absl::string_view field, const google::protobuf::RepeatedField<uint32_t>& ids,
                              uint32_t vocab_size) {
  Violations violations;
  violations.RequireIds(field, ids, vocab_size);
  return violations.status();
}

}  // namespace quire
