#include "server/request_output.h"

#include <algorithm>
#include <utility>

#include "server/errors.h"

namespace quire {
namespace {

void SetDuration(absl::Duration duration, google::protobuf::Duration& out) {
  const int64_t nanos = absl::ToInt64Nanoseconds(duration);
  out.set_seconds(nanos / 1000000000);
  out.set_nanos(static_cast<int32_t>(nanos % 1000000000));
}

void FillLogprobs(uint32_t id, float logprob, absl::Span<const TokenLogprob> top, v1::TokenLogprobs& out) {
  out.set_token_id(id);
  out.set_logprob(logprob);
  for (const TokenLogprob& best : top) {
    v1::TokenLogprob& entry = *out.add_top();
    entry.set_token_id(best.id);
    entry.set_logprob(best.logprob);
  }
}

absl::Status StatusOf(Ending ending) {
  switch (ending) {
    case Ending::kCancelled:
      return absl::CancelledError("the request was cancelled");
    case Ending::kExpired:
      return absl::DeadlineExceededError("the request's deadline has passed");
    case Ending::kShutdown:
      return TryLater(absl::StatusCode::kUnavailable, "the server is going down", absl::Seconds(1));
    case Ending::kFailed:
    case Ending::kNone:
      break;
  }
  return absl::InternalError("the request failed: the model's output was no number, or the engine has a fault");
}

// Never negative, and whole nanoseconds, so that the phases add up exactly.
absl::Duration Between(absl::Time from, absl::Time to) {
  return absl::Nanoseconds(std::max<int64_t>(0, absl::ToInt64Nanoseconds(to - from)));
}

}  // namespace

RequestOutput::RequestOutput(std::shared_ptr<const Request> request, OutputSpec spec, const Tokenizer& tokenizer)
    : request_(std::move(request)), spec_(std::move(spec)), last_event_(request_->arrival) {
  if (spec_.wants_text || !spec_.text.stop.empty()) text_.emplace(tokenizer, spec_.text);
}

void RequestOutput::Take(const TokenEvent& event, std::vector<Response>& responses) {
  switch (event.kind) {
    case EventKind::kStarted:
      return TakeStarted(event, responses);
    case EventKind::kPromptLogprobs:
      return TakePromptLogprobs(event, responses);
    case EventKind::kToken:
      return TakeToken(event, responses);
    case EventKind::kEnded:
      return TakeEnded(event);
  }
}

void RequestOutput::TakeStarted(const TokenEvent& event, std::vector<Response>& responses) {
  started_ = event.time;
  cached_tokens_ = event.cached_tokens;
  Response response;
  v1::Accepted& accepted = *response.message.mutable_accepted();
  accepted.set_request_id(spec_.request_id);
  accepted.set_prompt_tokens(static_cast<uint32_t>(request_->prompt.size()));
  accepted.set_seed(request_->sampling.seed);
  accepted.set_max_tokens(request_->max_tokens);
  v1::SamplingParams& sampling = *accepted.mutable_sampling();
  sampling.set_temperature(request_->sampling.temperature);
  sampling.set_top_k(request_->sampling.top_k);
  sampling.set_top_p(request_->sampling.top_p);
  sampling.set_min_p(request_->sampling.min_p);
  sampling.set_repetition_penalty(request_->sampling.repetition_penalty);
  sampling.set_frequency_penalty(request_->sampling.frequency_penalty);
  sampling.set_presence_penalty(request_->sampling.presence_penalty);
  for (const TokenBias& token : request_->logit_bias) (*sampling.mutable_logit_bias())[token.id] = token.bias;
  sampling.mutable_allowed_token_ids()->Add(request_->allowed_ids.begin(), request_->allowed_ids.end());
  sampling.set_seed(request_->sampling.seed);
  responses.push_back(std::move(response));
}

void RequestOutput::TakePromptLogprobs(const TokenEvent& event, std::vector<Response>& responses) {
  const size_t num_positions = event.logprobs.size();
  const size_t num_top = num_positions == 0 ? 0 : event.top.size() / num_positions;  // of each position
  for (size_t begin = 0; begin < num_positions; begin += kMaxPositionsPerMessage) {
    const size_t end = std::min(num_positions, begin + kMaxPositionsPerMessage);
    Response response;
    v1::PromptLogprobs& message = *response.message.mutable_prompt_logprobs();
    message.set_first_position(event.first_position + static_cast<uint32_t>(begin));
    for (size_t i = begin; i < end; ++i) {
      FillLogprobs(request_->prompt[event.first_position + i], event.logprobs[i],
                   absl::MakeConstSpan(event.top).subspan(i * num_top, num_top), *message.add_logprobs());
    }
    responses.push_back(std::move(response));
  }
}

std::string RequestOutput::Advance(const TokenEvent& event, v1::Finished& finished) {
  std::string text;
  if (event.finish == FinishReason::kStop) {
    if (text_) text_->PushStopToken(event.token_id, text);
    if (text_) text_->Finish(text);
    finished.set_stop_token_id(event.token_id);
    reason_ = v1::FINISH_REASON_STOP;
    return text;
  }
  if (text_) {
    if (const std::optional<size_t> stop = text_->Push(event.token_id, text)) {
      finished.set_stop(spec_.text.stop[*stop]);
      reason_ = v1::FINISH_REASON_STOP;
      must_stop_engine_ = event.finish == FinishReason::kNone;
      return text;
    }
  }
  if (event.finish == FinishReason::kLength) {
    if (text_) text_->Finish(text);
    reason_ = v1::FINISH_REASON_LENGTH;
  }
  return text;
}

void RequestOutput::TakeToken(const TokenEvent& event, std::vector<Response>& responses) {
  last_gap_ = Between(last_event_, event.time);
  last_event_ = event.time;
  if (num_tokens_++ == 0) first_token_ = event.time;
  ++untold_tokens_;

  Response response;
  v1::Delta& delta = *response.message.mutable_delta();
  delta.set_index(event.index);
  v1::Finished finished;
  std::string text = Advance(event, finished);
  if (spec_.wants_text) delta.set_text(std::move(text));
  if (spec_.wants_token_ids) delta.add_token_ids(event.token_id);
  if (request_->num_logprobs) FillLogprobs(event.token_id, event.logprob, event.top, *delta.add_logprobs());
  if (!delta.text().empty() || delta.token_ids_size() > 0 || delta.logprobs_size() > 0) {
    response.num_tokens = std::exchange(untold_tokens_, 0);
    responses.push_back(std::move(response));
  }
  if (reason_ == v1::FINISH_REASON_UNSPECIFIED) return;

  over_ = true;
  finished.set_index(event.index);
  finished.set_reason(reason_);
  FillUsage(finished);
  Response last;
  last.num_tokens = std::exchange(untold_tokens_, 0);
  *last.message.mutable_finished() = std::move(finished);
  responses.push_back(std::move(last));
}

void RequestOutput::TakeEnded(const TokenEvent& event) {
  last_event_ = std::max(last_event_, event.time);
  over_ = true;
  ending_ = event.ending;
  status_ = StatusOf(event.ending);
}

RequestRecord RequestOutput::Record() const {
  RequestRecord record;
  record.request_id = spec_.request_id;
  record.trace_id = spec_.trace_id;
  record.prompt_tokens = static_cast<uint32_t>(request_->prompt.size());
  record.completion_tokens = num_tokens_;
  record.cached_tokens = cached_tokens_;
  record.max_tokens = request_->max_tokens;
  const absl::Time started = std::min(started_, last_event_);
  const absl::Time first_token = std::min(first_token_, last_event_);
  record.queued = Between(request_->arrival, started);
  record.prefill = Between(started, first_token);
  record.decode = Between(first_token, last_event_);
  record.total = record.queued + record.prefill + record.decode;
  switch (ending_) {
    case Ending::kNone:
      record.ending = RequestEnding::kFinished;
      record.reason = reason_ == v1::FINISH_REASON_STOP ? "stop" : "length";
      break;
    case Ending::kCancelled:
      record.ending = RequestEnding::kCancelled;
      record.reason = "cancelled";
      break;
    case Ending::kExpired:
      record.ending = RequestEnding::kExpired;
      record.reason = "expired";
      break;
    case Ending::kFailed:
    case Ending::kShutdown:
      record.ending = RequestEnding::kFailed;
      record.reason = ending_ == Ending::kFailed ? "failed" : "shutdown";
      break;
  }
  return record;
}

void RequestOutput::FillUsage(v1::Finished& finished) const {
  const RequestRecord record = Record();
  v1::Usage& usage = *finished.mutable_usage();
  usage.set_prompt_tokens(record.prompt_tokens);
  usage.set_completion_tokens(record.completion_tokens);
  usage.set_cached_tokens(record.cached_tokens);
  v1::Timings& timings = *finished.mutable_timings();
  SetDuration(record.queued, *timings.mutable_queued());
  SetDuration(record.prefill, *timings.mutable_prefill());
  SetDuration(record.decode, *timings.mutable_decode());
  SetDuration(record.queued + record.prefill, *timings.mutable_time_to_first_token());
  SetDuration(record.total, *timings.mutable_total());
}

}  // namespace quire
