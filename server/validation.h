// Validation: the one place where a GenerateRequest's parameters are checked.
//
// A request is turned into a GenerateJob, or refused with the path of each field at fault. What a field cannot hold is
// INVALID_ARGUMENT; what it may hold and this build cannot do is UNIMPLEMENTED, in this order, so that a client learns
// of its own mistakes first.
//
// Thread: functions of their arguments; any thread. It knows nothing of gRPC, tokenizers or the engine's state.

#ifndef QUIRE_SERVER_VALIDATION_H_
#define QUIRE_SERVER_VALIDATION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "kernels/sampling/sampling.h"
#include "quire/v1/generation.pb.h"

namespace quire {

// What the served model and the flags allow.
struct RequestLimits {
  std::string model_name;
  uint32_t vocab_size = 0;
  uint32_t max_model_len = 0;  // tokens, prompt + output
  size_t max_text_bytes = 0;   // a longer prompt text cannot fit max_model_len
  SamplingParams default_sampling;
  std::vector<uint32_t> eos_ids;
  bool has_priorities = false;  // --scheduling-policy priority
};

// A request whose every field is in range. The prompt is a text or ids; the rest is as the scheduler and the text
// stream want it.
struct GenerateJob {
  std::string request_id;  // the client's; empty: the server makes one
  std::optional<std::string> text;
  std::vector<uint32_t> prompt;  // if there is no text

  SamplingParams sampling;
  std::vector<TokenBias> logit_bias;  // by rising id
  std::vector<uint32_t> allowed_ids;  // rising; empty: all
  bool has_seed = false;
  uint32_t num_outputs = 1;
  std::optional<uint32_t> max_tokens;  // absent: to the context's end
  uint32_t min_tokens = 0;
  std::vector<uint32_t> stop_ids;  // the client's, and eos unless ignored
  std::vector<std::string> stop;
  bool include_stop = false;

  bool wants_text = true;
  bool wants_token_ids = true;
  bool skip_special_tokens = true;
  std::optional<uint32_t> num_logprobs;
  std::optional<uint32_t> num_prompt_logprobs;

  int32_t priority = 0;
  std::string tenant;
  std::optional<absl::Duration> max_queue_time;
  std::optional<absl::Duration> time_limit;

  std::string cache_salt;
  bool bypass_prefix_cache = false;
};

// NOT_FOUND for another model's name, INVALID_ARGUMENT with BadRequest, or UNIMPLEMENTED with ErrorInfo.
absl::StatusOr<GenerateJob> ValidateGenerate(const v1::GenerateRequest& request, const RequestLimits& limits);

// INVALID_ARGUMENT for `field` (`text` or `tokens`) when a prompt of this many tokens does not fit. What only
// tokenizing tells.
absl::Status ValidatePromptLength(absl::string_view field, size_t num_tokens, const RequestLimits& limits);

// INVALID_ARGUMENT when an id is not below the vocabulary's size; `field` is the list's path.
absl::Status ValidateTokenIds(absl::string_view field, const google::protobuf::RepeatedField<uint32_t>& ids,
                              uint32_t vocab_size);

}  // namespace quire

#endif  // QUIRE_SERVER_VALIDATION_H_
