#include "server/detokenizer.h"

#include <iterator>
#include <utility>

#include "kernels/check.h"
#include "server/contained.h"

namespace quire {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, Metrics& metrics, const RequestLog& log, SpanExporter* spans)
    : tokenizer_(tokenizer), metrics_(metrics), log_(log), spans_(spans) {}

Detokenizer::~Detokenizer() { Shutdown(); }

void Detokenizer::Start(std::function<void(RequestId, uint32_t)> stop,
                        std::function<void(const absl::Status&)> failed) {
  Check(!thread_.joinable(), "Detokenizer::Start twice");
  stop_ = std::move(stop);
  failed_ = std::move(failed);
  thread_ = std::thread([this] { Loop(); });
}

void Detokenizer::Open(std::shared_ptr<const Request> request, OutputSpec spec, std::shared_ptr<ResponseSink> sink) {
  const RequestId id = request->id;
  const uint32_t num_outputs = request->num_outputs;
  Live live{RequestOutput(std::move(request), std::move(spec), tokenizer_), std::move(sink), num_outputs};
  const std::lock_guard<std::mutex> lock(mutex_);
  inbox_.opened.emplace_back(id, std::move(live));  // its first event will wake the thread
}

void Detokenizer::Abandon(RequestId id) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    inbox_.abandoned.push_back(id);
  }
  wake_.notify_one();
}

void Detokenizer::OnEvents(std::vector<TokenEvent>& events) {
  if (events.empty()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (inbox_.events.empty()) {
      inbox_.events.swap(events);  // the capacities go round: nothing is allocated once they have grown
    } else {
      inbox_.events.insert(inbox_.events.end(), std::make_move_iterator(events.begin()),
                           std::make_move_iterator(events.end()));
    }
  }
  wake_.notify_one();
}

void Detokenizer::OnEngineFailure(const absl::Status& status) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    inbox_.failure = status;
  }
  wake_.notify_one();
}

void Detokenizer::Shutdown() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    inbox_.stop = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Detokenizer::Loop() {
  Inbox taken;
  while (!taken.stop) {
    taken.opened.clear();
    taken.abandoned.clear();
    taken.events.clear();
    taken.failure.reset();
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return !inbox_.empty(); });
      std::swap(inbox_, taken);
    }
    // A request is opened before it is submitted, so it is here before its events are.
    for (auto& [id, live] : taken.opened) live_.emplace(id, std::move(live));
    for (const RequestId id : taken.abandoned) live_.erase(id);
    for (const TokenEvent& event : taken.events) HandleContained(event);
    if (taken.failure) failed_(*taken.failure);
  }
  TokenEvent ended;
  ended.kind = EventKind::kEnded;
  ended.ending = Ending::kShutdown;
  ended.time = absl::Now();
  while (!live_.empty()) {
    ended.request_id = live_.begin()->first;
    HandleContained(ended);
  }
}

void Detokenizer::HandleContained(const TokenEvent& event) {
  const absl::Status status = Contained([&] {
    Handle(event);
    return absl::OkStatus();
  });
  if (status.ok()) return;
  const auto found = live_.find(event.request_id);
  if (found == live_.end()) return;
  // Out of memory, most likely: what is said of it must need little.
  Live& live = found->second;
  for (uint32_t index = 0; index < live.num_outputs; ++index) stop_(event.request_id, index);
  metrics_.Discarded(live.output.untold_tokens());
  RequestRecord record;
  record.ending = RequestEnding::kFailed;
  metrics_.Ended(record);
  live.sink->End(status);
  live_.erase(found);
}

void Detokenizer::Handle(const TokenEvent& event) {
  const auto found = live_.find(event.request_id);
  const bool is_of_output = event.kind == EventKind::kToken || event.kind == EventKind::kStopped;
  const bool late = found == live_.end() || (is_of_output && found->second.output.IsOver(event.index));
  if (late) {  // ended by a stop string
    metrics_.LateEvent();
    if (event.kind == EventKind::kToken) metrics_.Discarded(1);
    return;
  }
  Live& live = found->second;
  responses_.clear();
  live.output.Take(event, responses_);
  if (event.kind == EventKind::kToken) {
    if (live.output.must_stop_engine()) stop_(event.request_id, event.index);
    if (live.output.num_tokens(event.index) == 1) {
      metrics_.FirstToken(live.output.last_gap());
    } else {
      metrics_.NextToken(live.output.last_gap());
    }
  }
  if (live.output.over()) {
    End(event.request_id, live);
    return;
  }
  for (RequestOutput::Response& response : responses_)
    live.sink->Push(std::move(response.message), response.num_tokens);
}

void Detokenizer::End(RequestId id, Live& live) {
  const RequestRecord record = live.output.Record();
  if (!live.output.status().ok()) metrics_.Discarded(live.output.untold_tokens());
  // Counted before the client is told: a client that has its answer finds it in the metrics.
  metrics_.Ended(record);
  for (RequestOutput::Response& response : responses_)
    live.sink->Push(std::move(response.message), response.num_tokens);
  live.sink->End(live.output.status());
  live_.erase(id);
  log_.Ended(record);
  if (spans_ != nullptr) spans_->Ended(record);
}

}  // namespace quire
