#include "server/vllm_dialect.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/errors.h"

namespace quire {
namespace {

namespace vllm = ::vllm::grpc::engine;

constexpr int32_t kMaxLogprobs = 20;

// -1 stands for "all" in vLLM: no server sends a whole vocabulary for each token.
absl::Status SetLogprobs(absl::string_view field, int32_t from, bool has, void (v1::OutputOptions::*set)(uint32_t),
                         v1::OutputOptions& to) {
  if (!has) return absl::OkStatus();
  if (from < 0 || from > kMaxLogprobs) {
    return InvalidField(field, absl::StrCat("is ", from, "; allowed: 0 to ", kMaxLogprobs));
  }
  (to.*set)(static_cast<uint32_t>(from));
  return absl::OkStatus();
}

void SetConstraint(vllm::SamplingParams& from, v1::GenerateRequest& to) {
  switch (from.constraint_case()) {
    case vllm::SamplingParams::CONSTRAINT_NOT_SET:
    case vllm::SamplingParams::kStructuralTag:  // refused before
      return;
    case vllm::SamplingParams::kJsonSchema:
      return to.set_json_schema(std::move(*from.mutable_json_schema()));
    case vllm::SamplingParams::kRegex:
      return to.set_regex(std::move(*from.mutable_regex()));
    case vllm::SamplingParams::kGrammar:
      return to.set_grammar(std::move(*from.mutable_grammar()));
    case vllm::SamplingParams::kJsonObject:
      return to.set_json_object(from.json_object());
    case vllm::SamplingParams::kChoice:
      return to.mutable_choice()->mutable_choices()->Swap(from.mutable_choice()->mutable_choices());
  }
}

absl::Status SetSampling(vllm::SamplingParams& from, v1::GenerateRequest& to) {
  if (from.has_structural_tag()) {
    return NotSupported("sampling_params.structural_tag", "structural tags are not built");
  }
  v1::SamplingParams& sampling = *to.mutable_sampling();
  sampling.set_temperature(from.has_temperature() ? from.temperature() : 1.0f);
  sampling.set_top_p(from.top_p() == 0 ? 1.0f : from.top_p());
  sampling.set_top_k(from.top_k());
  sampling.set_min_p(from.min_p());
  sampling.set_frequency_penalty(from.frequency_penalty());
  sampling.set_presence_penalty(from.presence_penalty());
  sampling.set_repetition_penalty(from.repetition_penalty() == 0 ? 1.0f : from.repetition_penalty());
  if (from.has_seed()) sampling.set_seed(static_cast<uint64_t>(int64_t{from.seed()}));
  for (const auto& [id, bias] : from.logit_bias()) {
    if (id < 0) {
      return InvalidField(absl::StrCat("sampling_params.logit_bias[", id, "]"), "is a negative id; allowed: 0 or more");
    }
    (*sampling.mutable_logit_bias())[static_cast<uint32_t>(id)] = bias;
  }
  if (from.n() != 0) to.set_n(from.n());

  v1::StoppingCriteria& stopping = *to.mutable_stopping();
  if (from.has_max_tokens()) stopping.set_max_tokens(from.max_tokens());
  stopping.set_min_tokens(from.min_tokens());
  stopping.mutable_stop()->Swap(from.mutable_stop());
  stopping.mutable_stop_token_ids()->Swap(from.mutable_stop_token_ids());
  stopping.set_include_stop(from.include_stop_str_in_output());
  stopping.set_ignore_eos(from.ignore_eos());

  v1::OutputOptions& output = *to.mutable_output();
  output.set_text(false);
  output.set_token_ids(true);
  output.set_skip_special_tokens(from.skip_special_tokens());  // decides what stop strings see
  absl::Status status = SetLogprobs("sampling_params.logprobs", from.logprobs(), from.has_logprobs(),
                                    &v1::OutputOptions::set_logprobs, output);
  status.Update(SetLogprobs("sampling_params.prompt_logprobs", from.prompt_logprobs(), from.has_prompt_logprobs(),
                            &v1::OutputOptions::set_prompt_logprobs, output));
  SetConstraint(from, to);
  return status;
}

absl::Status SetPrompt(vllm::GenerateRequest& from, uint32_t max_model_len, v1::GenerateRequest& to) {
  const bool truncates = from.sampling_params().has_truncate_prompt_tokens();
  const int32_t limit = from.sampling_params().truncate_prompt_tokens();
  if (truncates && limit != -1 && limit < 1) {
    return InvalidField("sampling_params.truncate_prompt_tokens",
                        absl::StrCat("is ", limit, "; allowed: 1 or more, or -1"));
  }
  if (from.has_text()) {
    if (truncates) {
      return NotSupported("sampling_params.truncate_prompt_tokens", "only a tokenized prompt can be truncated");
    }
    to.set_text(std::move(*from.mutable_text()));
  } else if (from.has_tokenized()) {
    auto& ids = *from.mutable_tokenized()->mutable_input_ids();
    const int keep = limit == -1 ? static_cast<int>(max_model_len) - 1 : limit;
    if (truncates && ids.size() > keep) ids.ExtractSubrange(0, ids.size() - keep, nullptr);
    to.mutable_tokens()->mutable_ids()->Swap(&ids);
  }
  return absl::OkStatus();
}

void Add(const v1::TokenLogprobs& from, vllm::OutputLogProbs& to) {
  to.add_token_logprobs(from.logprob());
  to.add_token_ids(from.token_id());
  vllm::TopLogProbs& top = *to.add_top_logprobs();
  for (const v1::TokenLogprob& t : from.top()) {
    top.add_values(t.logprob());
    top.add_token_ids(t.token_id());
  }
}

}  // namespace

absl::StatusOr<v1::GenerateRequest> FromVllm(vllm::GenerateRequest request, uint32_t max_model_len) {
  if (request.has_mm_inputs()) return NotSupported("mm_inputs", "this model takes text alone");
  if (request.has_kv_transfer_params() || request.has_kv_transfer_params_json()) {
    return NotSupported("kv_transfer_params", "the KV cache is not transferred between servers");
  }
  if (request.data_parallel_rank() != 0) {
    return InvalidField("data_parallel_rank", absl::StrCat("is ", request.data_parallel_rank(), "; allowed: 0"));
  }
  v1::GenerateRequest result;
  result.set_request_id(std::move(*request.mutable_request_id()));
  if (absl::Status status = SetPrompt(request, max_model_len, result); !status.ok()) return status;
  if (absl::Status status = SetSampling(*request.mutable_sampling_params(), result); !status.ok()) return status;
  return result;
}

std::string VllmFieldName(absl::string_view field) {
  constexpr std::pair<absl::string_view, absl::string_view> kPrefixes[] = {{"sampling.", "sampling_params."},
                                                                           {"stopping.", "sampling_params."},
                                                                           {"output.", "sampling_params."},
                                                                           {"tokens.ids", "tokenized.input_ids"}};
  for (const auto& [ours, theirs] : kPrefixes) {
    if (absl::ConsumePrefix(&field, ours)) return absl::StrCat(theirs, field);
  }
  if (field == "prompt") return "input";
  for (const absl::string_view name : {"n", "json_schema", "regex", "grammar", "choice", "json_object"}) {
    if (field == name) return absl::StrCat("sampling_params.", field);
  }
  return std::string(field);
}

void VllmEncoder::Encode(v1::GenerateResponse response, std::vector<vllm::GenerateResponse>& out) {
  switch (response.event_case()) {
    case v1::GenerateResponse::kPromptLogprobs: {
      const v1::PromptLogprobs& logprobs = response.prompt_logprobs();
      if (prompt_logprobs_.token_ids_size() == 0) {
        prompt_logprobs_.add_token_logprobs();
        prompt_logprobs_.add_token_ids(first_prompt_id_);
        prompt_logprobs_.add_top_logprobs();
      }
      for (const v1::TokenLogprobs& token : logprobs.logprobs()) {
        prompt_logprobs_.add_token_logprobs()->set_value(token.logprob());
        prompt_logprobs_.add_token_ids(token.token_id());
        vllm::TopLogProbs& top = *prompt_logprobs_.add_top_logprobs();
        for (const v1::TokenLogprob& t : token.top()) {
          top.add_values(t.logprob());
          top.add_token_ids(t.token_id());
        }
      }
      return;
    }
    case v1::GenerateResponse::kDelta:
      return EncodeDelta(response.delta(), out);
    case v1::GenerateResponse::kFinished:
      return EncodeFinished(response.finished(), out);
    case v1::GenerateResponse::kAccepted:
    case v1::GenerateResponse::EVENT_NOT_SET:
      return;
  }
}

void VllmEncoder::EncodeDelta(const v1::Delta& delta, std::vector<vllm::GenerateResponse>& out) {
  vllm::GenerateComplete& output = outputs_[delta.index()];
  output.mutable_output_ids()->Add(delta.token_ids().begin(), delta.token_ids().end());
  for (const v1::TokenLogprobs& token : delta.logprobs()) Add(token, *output.mutable_output_logprobs());
  if (!stream_) return;
  vllm::GenerateStreamChunk& chunk = *out.emplace_back().mutable_chunk();
  chunk.set_index(delta.index());
  *chunk.mutable_token_ids() = delta.token_ids();
  for (const v1::TokenLogprobs& token : delta.logprobs()) Add(token, *chunk.mutable_output_logprobs());
  if (!std::exchange(told_prompt_, true) && prompt_logprobs_.token_ids_size() > 0) {
    *chunk.mutable_input_logprobs() = prompt_logprobs_;
  }
}

void VllmEncoder::EncodeFinished(const v1::Finished& finished, std::vector<vllm::GenerateResponse>& out) {
  vllm::GenerateComplete& complete = *out.emplace_back().mutable_complete();
  if (const auto found = outputs_.find(finished.index()); found != outputs_.end()) {
    complete = std::move(found->second);
    outputs_.erase(found);
  }
  complete.set_index(finished.index());
  complete.set_finish_reason(finished.reason() == v1::FINISH_REASON_STOP ? "stop" : "length");
  complete.set_prompt_tokens(finished.usage().prompt_tokens());
  complete.set_completion_tokens(finished.usage().completion_tokens());
  complete.set_cached_tokens(finished.usage().cached_tokens());
  if (finished.has_stop()) complete.set_matched_stop_str(finished.stop());
  if (finished.has_stop_token_id()) complete.set_matched_token_id(finished.stop_token_id());
  if (prompt_logprobs_.token_ids_size() > 0) *complete.mutable_input_logprobs() = prompt_logprobs_;
}

}  // namespace quire
