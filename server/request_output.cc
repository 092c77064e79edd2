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

absl::Status StatusOf(const TokenEvent& event) {
  switch (event.ending) {
    case Ending::kCancelled:
      return absl::CancelledError("the request was cancelled");
    case Ending::kExpired:
      return absl::DeadlineExceededError("the request's deadline has passed");
    case Ending::kQueueTimeExceeded:
      return DeadlineExceeded("QUEUE_TIME_EXCEEDED", "the request did not start within its max_queue_time");
    case Ending::kDeadlineUnreachable:
      return DeadlineExceeded("DEADLINE_UNREACHABLE",
                              "the request could not be served by its deadline, by the measured rate and what waits");
    case Ending::kRefused:
      return TryLater(absl::StatusCode::kResourceExhausted, "too much waits for this request to be served in time",
                      event.retry_delay());
    case Ending::kEngineFailed:
      return TryLater(absl::StatusCode::kUnavailable, "the engine failed", absl::Seconds(1));
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
    : request_(std::move(request)),
      spec_(std::move(spec)),
      outputs_(request_->num_outputs),
      num_live_(request_->num_outputs) {
  for (Output& output : outputs_) {
    output.last_event = request_->arrival;
    if (spec_.wants_text || !spec_.text.stop.empty()) output.text.emplace(tokenizer, spec_.text, request_->prompt);
  }
}

void RequestOutput::Take(const TokenEvent& event, std::vector<Response>& responses) {
  switch (event.kind) {
    case EventKind::kStarted:
      return TakeStarted(event, responses);
    case EventKind::kPromptLogprobs:
      return TakePromptLogprobs(event, responses);
    case EventKind::kToken:
      return TakeToken(event, responses);
    case EventKind::kStopped:
      return TakeStopped(event, responses);
    case EventKind::kEnded:
      return TakeEnded(event);
  }
}

void RequestOutput::TakeStarted(const TokenEvent& event, std::vector<Response>& responses) {
  started_ = event.time;
  cached_tokens_ = event.cached_tokens;
  Accept(responses);
}

void RequestOutput::Accept(std::vector<Response>& responses) const {
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
  const size_t num_positions = event.logprobs().size();
  const size_t num_top = num_positions == 0 ? 0 : event.top().size() / num_positions;  // of each position
  for (size_t begin = 0; begin < num_positions; begin += kMaxPositionsPerMessage) {
    const size_t end = std::min(num_positions, begin + kMaxPositionsPerMessage);
    Response response;
    v1::PromptLogprobs& message = *response.message.mutable_prompt_logprobs();
    message.set_first_position(event.first_position + static_cast<uint32_t>(begin));
    for (size_t i = begin; i < end; ++i) {
      FillLogprobs(request_->prompt[event.first_position + i], event.logprobs()[i],
                   event.top().subspan(i * num_top, num_top), *message.add_logprobs());
    }
    responses.push_back(std::move(response));
  }
}

std::string RequestOutput::Advance(const TokenEvent& event, Output& output, v1::Finished& finished) {
  std::string text;
  if (event.finish == FinishReason::kStop) {
    if (output.text) output.text->PushStopToken(event.token_id, text);
    if (output.text) output.text->Finish(text);
    finished.set_stop_token_id(event.token_id);
    output.reason = v1::FINISH_REASON_STOP;
    return text;
  }
  if (output.text) {
    if (const std::optional<size_t> stop = output.text->Push(event.token_id, text)) {
      finished.set_stop(spec_.text.stop[*stop]);
      output.reason = v1::FINISH_REASON_STOP;
      must_stop_engine_ = event.finish == FinishReason::kNone;
      return text;
    }
  }
  if (event.finish == FinishReason::kLength) {
    if (output.text) output.text->Finish(text);
    output.reason = v1::FINISH_REASON_LENGTH;
  }
  return text;
}

void RequestOutput::TakeToken(const TokenEvent& event, std::vector<Response>& responses) {
  Output& output = outputs_[event.index];
  must_stop_engine_ = false;
  last_gap_ = Between(output.last_event, event.time);
  output.last_event = event.time;
  if (output.num_tokens++ == 0) output.first_token = event.time;
  ++output.untold_tokens;

  Response response;
  v1::Delta& delta = *response.message.mutable_delta();
  delta.set_index(event.index);
  v1::Finished finished;
  std::string text = Advance(event, output, finished);
  if (spec_.wants_text) delta.set_text(std::move(text));
  if (spec_.wants_token_ids) delta.add_token_ids(event.token_id);
  if (request_->num_logprobs) FillLogprobs(event.token_id, event.logprob, event.top(), *delta.add_logprobs());
  if (!delta.text().empty() || delta.token_ids_size() > 0 || delta.logprobs_size() > 0) {
    response.num_tokens = std::exchange(output.untold_tokens, 0);
    responses.push_back(std::move(response));
  }
  if (output.reason != v1::FINISH_REASON_UNSPECIFIED) Finish(event.index, std::move(finished), responses);
}

void RequestOutput::TakeStopped(const TokenEvent& event, std::vector<Response>& responses) {
  must_stop_engine_ = false;
  if (started_ == absl::InfiniteFuture()) {  // its time was over in the queue
    started_ = event.time;
    Accept(responses);
  }
  Output& output = outputs_[event.index];
  output.reason = v1::FINISH_REASON_TIME_LIMIT;
  output.last_event = std::max(output.last_event, event.time);
  std::string text;
  if (output.text) output.text->Finish(text);
  if (spec_.wants_text && !text.empty()) {
    Response response;
    v1::Delta& delta = *response.message.mutable_delta();
    delta.set_index(event.index);
    delta.set_text(std::move(text));
    response.num_tokens = std::exchange(output.untold_tokens, 0);
    responses.push_back(std::move(response));
  }
  Finish(event.index, v1::Finished(), responses);
}

void RequestOutput::Finish(uint32_t index, v1::Finished finished, std::vector<Response>& responses) {
  Output& output = outputs_[index];
  --num_live_;
  finished.set_index(index);
  finished.set_reason(output.reason);
  FillUsage(output, finished);
  Response last;
  last.num_tokens = std::exchange(output.untold_tokens, 0);
  *last.message.mutable_finished() = std::move(finished);
  responses.push_back(std::move(last));
}

void RequestOutput::TakeEnded(const TokenEvent& event) {
  must_stop_engine_ = false;
  num_live_ = 0;
  ended_ = event.time;
  ending_ = event.ending;
  status_ = StatusOf(event);
}

uint32_t RequestOutput::untold_tokens() const {
  uint32_t untold = 0;
  for (const Output& output : outputs_) untold += output.untold_tokens;
  return untold;
}

RequestOutput::Phases RequestOutput::PhasesOf(absl::Time first_token, absl::Time last_event) const {
  const absl::Time started = std::min(started_, last_event);
  first_token = std::min(first_token, last_event);
  return {.queued = Between(request_->arrival, started),
          .prefill = Between(started, first_token),
          .decode = Between(first_token, last_event)};
}

RequestRecord RequestOutput::Record() const {
  RequestRecord record;
  record.request_id = spec_.request_id;
  record.call = spec_.call;
  record.status = status_;
  record.sampling = request_->sampling;
  record.tenant = request_->tenant;
  record.prompt_tokens = static_cast<uint32_t>(request_->prompt.size());
  record.cached_tokens = cached_tokens_;
  record.max_tokens = request_->max_tokens;
  record.num_outputs = request_->num_outputs;
  absl::Time first_token = absl::InfiniteFuture(), last_event = ended_;
  bool stopped = true, timed_out = false;
  for (const Output& output : outputs_) {
    record.completion_tokens += output.num_tokens;
    first_token = std::min(first_token, output.first_token);
    last_event = std::max(last_event, output.last_event);
    stopped = stopped && output.reason == v1::FINISH_REASON_STOP;
    timed_out = timed_out || output.reason == v1::FINISH_REASON_TIME_LIMIT;
  }
  const Phases phases = PhasesOf(first_token, last_event);
  record.queued = phases.queued;
  record.prefill = phases.prefill;
  record.decode = phases.decode;
  record.total = record.queued + record.prefill + record.decode;
  switch (ending_) {
    case Ending::kNone:
      record.ending = RequestEnding::kFinished;
      record.reason = timed_out ? "time_limit" : stopped ? "stop" : "length";
      break;
    case Ending::kCancelled:
      record.ending = RequestEnding::kCancelled;
      record.reason = "cancelled";
      break;
    case Ending::kExpired:
    case Ending::kQueueTimeExceeded:
      record.ending = RequestEnding::kExpired;
      record.reason = ending_ == Ending::kExpired ? "expired" : "queue_time_exceeded";
      break;
    case Ending::kDeadlineUnreachable:
    case Ending::kRefused:
      record.ending = RequestEnding::kRejected;
      record.reason = ending_ == Ending::kRefused ? "refused" : "deadline_unreachable";
      break;
    case Ending::kFailed:
    case Ending::kEngineFailed:
    case Ending::kShutdown:
      record.ending = RequestEnding::kFailed;
      record.reason = ending_ == Ending::kShutdown ? "shutdown" : "failed";
      break;
  }
  return record;
}

void RequestOutput::FillUsage(const Output& output, v1::Finished& finished) const {
  v1::Usage& usage = *finished.mutable_usage();
  usage.set_prompt_tokens(static_cast<uint32_t>(request_->prompt.size()));
  usage.set_completion_tokens(output.num_tokens);
  usage.set_cached_tokens(cached_tokens_);
  const Phases phases = PhasesOf(output.first_token, output.last_event);
  v1::Timings& timings = *finished.mutable_timings();
  SetDuration(phases.queued, *timings.mutable_queued());
  SetDuration(phases.prefill, *timings.mutable_prefill());
  SetDuration(phases.decode, *timings.mutable_decode());
  SetDuration(phases.queued + phases.prefill, *timings.mutable_time_to_first_token());
  SetDuration(phases.queued + phases.prefill + phases.decode, *timings.mutable_total());
}

}  // namespace quire
