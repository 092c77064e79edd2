// The laws that a simulation checks: of each batch, of the blocks and accounts after each step, and of what clients are
// told.

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/scheduler/simulation.h"

namespace quire {

std::vector<Simulation::OutputId> Simulation::AliveSequences() const {
  std::vector<OutputId> sequences;
  for (const RequestId id : alive_) {
    const Client& client = clients_.at(id);
    const uint32_t num_sequences = client.forked ? client.request->num_outputs : 1;
    for (uint32_t index = 0; index < num_sequences; ++index) {
      if (!client.outputs[index].over) sequences.emplace_back(id, index);
    }
  }
  return sequences;
}

std::vector<Simulation::OutputId> Simulation::Runnable() const {
  std::vector<OutputId> runnable = AliveSequences();
  std::erase_if(runnable, [&](const OutputId& output) { return clients_.at(output.first).paused; });
  if (options_.policy == SchedulingPolicy::kPriority) {
    const auto turn = [&](const OutputId& output) {
      const Request& request = *clients_.at(output.first).request;
      return request.arrival + request.priority * options_.priority_aging;
    };
    std::stable_sort(runnable.begin(), runnable.end(),
                     [&](const OutputId& a, const OutputId& b) { return turn(a) < turn(b); });
  }
  return runnable;
}

void Simulation::CheckBatch() {
  const Batch& batch = flights_.back().batch;
  const std::vector<OutputId> runnable = Runnable();
  const bool waits_for_commit = batch.empty() && flights_.size() > 1;
  Require(batch.empty() == runnable.empty() || waits_for_commit, "law 2, progress",
          "a batch is empty while a sequence is runnable");
  Require(batch.num_tokens <= options_.max_num_batched_tokens, "budget", "a step has too many tokens");
  Require(batch.chunks.size() <= size_t(options_.max_num_seqs), "budget", "a step has too many sequences");
  Require(batch.chunks.size() <= runnable.size(), "order", "more run than can");
  int32_t num_tokens = 0;
  for (const Chunk& chunk : batch.chunks) num_tokens += chunk.count;
  Require(num_tokens == batch.num_tokens, "budget", "num_tokens is not the sum of the chunks");
  if (batch.chunks.size() <= runnable.size()) CheckOrder(runnable);
}

void Simulation::CheckOrder(const std::vector<OutputId>& runnable) {
  // Who resumes finds younger ones running, and a tenant's turn is none of arrival.
  const bool is_prefix =
      options_.policy == SchedulingPolicy::kPriority || (options_.policy == SchedulingPolicy::kFcfs && !has_paused_);
  const Batch& batch = flights_.back().batch;
  if (!is_prefix || runnable.empty()) return;
  std::map<OutputId, int32_t> begins;
  for (const Chunk& chunk : batch.chunks) begins[{chunk.sequence->request().id, chunk.sequence->index()}] = chunk.begin;
  size_t num_found = 0;
  for (size_t i = 0; i < runnable.size() && num_found < begins.size(); ++i) {
    const bool runs = begins.contains(runnable[i]);
    num_found += runs ? 1 : 0;
    Require(runs || IsExcused(runnable[i]), "order", "an output is passed over", runnable[i].first);
  }
  const OutputId first = runnable[0];
  const int32_t num_computed = clients_[first.first].outputs[first.second].num_computed;
  Require(first != oldest_ || !begins.contains(first) || begins[first] == num_computed || has_paused_,
          "law 2, progress", "the first in the order was preempted");
  if (first != oldest_) oldest_ = begins.contains(first) ? first : OutputId();
}

bool Simulation::IsExcused(const OutputId& id) const {
  const Flight& made = flights_.back();
  const auto runs_on = [&](const OutputId& other) {
    return std::any_of(made.batch.chunks.begin(), made.batch.chunks.end(), [&](const Chunk& chunk) {
      return OutputId(chunk.sequence->request().id, chunk.sequence->index()) == other;
    });
  };
  return IsInFlight(id) || std::any_of(flights_.begin(), std::prev(flights_.end()), [&](const Flight& before) {
           return !std::all_of(before.ids.begin(), before.ids.end(), runs_on);
         });
}

void Simulation::CheckAccounts() {
  const SchedulerStats stats = scheduler_.stats();
  Require(stats.computed_tokens == num_told_ + stats.recomputed_tokens + stats.discarded_tokens, "accounts",
          "tokens computed are not those delivered, recomputed and discarded");
  Require(tally_.accepted == tally_.finished + tally_.ended + tally_.dropped + alive_.size(), "accounts",
          "requests received are not those finished, ended, dropped and alive");
  Require(size_t(stats.num_running + stats.num_waiting) == AliveSequences().size(), "accounts", "others are alive");
}

void Simulation::CheckConservation(const Flight& flight) {
  const SchedulerStats stats = scheduler_.stats();
  Require(stats.blocks_free + stats.blocks_held + stats.blocks_cached == options_.num_blocks, "law 1, conservation",
          "free, held and reclaimable blocks are not all blocks");
  std::vector<bool> is_held(options_.num_blocks, false);
  const auto hold = [&](const Sequence& sequence) {
    for (int32_t group = 0; group < sequence.num_groups(); ++group) {
      for (const BlockId block : sequence.block_table(group).blocks()) is_held[block] = true;
    }
  };
  for (const OutputId& id : flight.ids) {
    if (!IsOver(id)) hold(*clients_[id.first].outputs[id.second].sequence);
  }
  bool knows_all = true;
  if (options_.run_ahead > 0) {
    for (const OutputId& id : AliveSequences()) {
      const Output& output = clients_[id.first].outputs[id.second];
      if (output.sequence != nullptr) hold(*output.sequence);
      knows_all &= output.sequence != nullptr || !clients_[id.first].started;  // admitted, not named yet
    }
  }
  for (const Flight& other : flights_) {
    for (const Chunk& chunk : other.batch.chunks) hold(*chunk.sequence);
    for (const BlockId block : other.blocks) is_held[block] = true;  // until it is committed
  }
  const auto num_held = static_cast<int32_t>(std::count(is_held.begin(), is_held.end(), true));
  Require(stats.blocks_held == num_held || (!knows_all && stats.blocks_held > num_held), "law 1, conservation",
          "the held blocks are not those in the tables of running sequences");
}

void Simulation::CheckAtEnd() {
  const SchedulerStats stats = scheduler_.stats();
  uint64_t num_tokens = 0, prompt_tokens = 0;
  for (const auto& [id, client] : clients_) {
    Require(client.over, "law 3, one ending", "a request has no ending", id);
    for (const Output& output : client.outputs) num_tokens += output.tokens.size();
    prompt_tokens += client.started ? client.request->prompt.size() : 0;
  }
  Require(scheduler_.idle() && stats.num_running == 0 && stats.num_waiting == 0, "law 3, one ending", "not idle");
  Require(stats.blocks_held == 0 || has_failed_, "law 1, conservation", "a block is held after the last request");
  Require(tally_.accepted == tally_.finished + tally_.ended + tally_.dropped, "law 3, one ending", "the sum");
  Require(stats.sampled_tokens == num_tokens, "counters", "sampled_tokens");
  Require(stats.prompt_tokens == prompt_tokens, "counters", "prompt_tokens");
  Require(stats.prefix_hits == tally_.cached_tokens, "counters", "prefix_hits is not the sum of cached_tokens");
  Require(stats.prefix_hits <= stats.prefix_queries, "counters", "prefix_queries");
  Require(stats.discarded_tokens == expected_discarded_, "counters", "discarded_tokens");
  // A batch that ran and was never committed is in nobody's account.
  Require(stats.recomputed_tokens == runner_.recomputed_tokens() || (has_failed_ && flights_.size() > 1), "counters",
          "recomputed_tokens");
}

// ---------------------------------------------------------------------------------------------------------------------
// What clients are told

void Simulation::TakeEvents() {
  for (const TokenEvent& event : events_) {
    Client& client = clients_[event.request_id];
    ++tally_.events;
    Require(!client.over, "law 3, one ending", "an event comes after the end", event.request_id);
    if (event.time != absl::Time()) {
      Require(event.time >= client.last_event && event.time <= now_, "time", "an event is older than the one before");
      client.last_event = event.time;
    }
    switch (event.kind) {
      case EventKind::kStarted: {
        Require(!client.started, "one start", "a request starts twice", event.request_id);
        const Request& request = *client.request;
        const bool may_hit = options_.enable_prefix_caching && request.use_prefix_cache && request.read_prefix_cache &&
                             !request.num_prompt_logprobs;
        Require(event.cached_tokens == 0 || may_hit, "law 7, prefix hits", "a request hits that does not read");
        Require(event.cached_tokens < request.prompt.size(), "law 7, prefix hits", "no token is left to run");
        Require(!client.paused, "order", "a request starts that is paused", event.request_id);
        Require(request.queue_deadline > now_, "time", "a request starts after its queue deadline");
        Require(static_cast<int32_t>(request.prompt.size()) < life_.planted_fault, "planted", "a long prompt starts",
                event.request_id);
        client.started = true;
        tally_.cached_tokens += event.cached_tokens;
        const bool has_windows = *std::max_element(options_.kv_windows.begin(), options_.kv_windows.end()) > 0;
        tally_.cached_tokens_of_windows += has_windows ? event.cached_tokens : 0;
        break;
      }
      case EventKind::kPromptLogprobs:
        TakePromptLogprobs(event, client);
        break;
      case EventKind::kToken:
        TakeToken(event, client);
        break;
      case EventKind::kStopped:
        TakeStopped(event, client);
        break;
      case EventKind::kEnded:
        TakeEnding(event, client);
        break;
    }
  }
  events_.clear();
}

void Simulation::TakePromptLogprobs(const TokenEvent& event, Client& client) {
  const Request& request = *client.request;
  const uint32_t num_top = request.num_prompt_logprobs.value_or(0);
  Require(!client.forked && client.started, "prompt log-probabilities", "not between start and first token");
  Require(event.first_position == client.next_prompt_position && !event.logprobs().empty(), "prompt log-probabilities",
          "another position than the next", request.id);
  Require(event.top().size() == event.logprobs().size() * num_top, "prompt log-probabilities", "size of top");
  for (size_t i = 0; i < event.logprobs().size(); ++i) {
    const float logprob = FakeRunner::LogprobAt(request, client.next_prompt_position++);
    Require(event.logprobs()[i] == logprob, "prompt log-probabilities", "of another position");
    for (uint32_t k = 0; k < num_top; ++k) {
      Require(event.top()[i * num_top + k].logprob == logprob - float(k), "prompt log-probabilities", "top of another");
    }
  }
}

void Simulation::TakeToken(const TokenEvent& event, Client& client) {
  const Request& request = *client.request;
  Output& output = client.outputs.at(event.index);
  const auto position = static_cast<int32_t>(request.prompt.size() + output.tokens.size());
  Require(client.started, "one start", "a token comes before the start", request.id);
  Require(!output.over, "law 3, one ending", "a token comes after the end", request.id);
  if (request.num_prompt_logprobs) {
    Require(client.next_prompt_position == request.prompt.size(), "prompt log-probabilities", "not all came");
  }
  if (request.num_logprobs) {
    const float logprob = FakeRunner::LogprobAt(request, position);
    Require(event.logprob == logprob && event.top().size() == *request.num_logprobs, "log-probabilities",
            "of another token", request.id);
    if (!event.top().empty()) Require(event.top()[0].logprob == logprob, "log-probabilities", "top of another");
  }
  client.forked = true;
  output.tokens.push_back(event.token_id);
  ++num_told_;

  const FakeRunner::Output& expected = output.expected;
  const size_t num_tokens = output.tokens.size();
  Require(num_tokens <= expected.tokens.size() && event.token_id == expected.tokens[num_tokens - 1], "laws 4, 6 and 7",
          "other tokens than alone", request.id);
  const FinishReason finish = num_tokens == expected.tokens.size() ? expected.finish : FinishReason::kNone;
  Require(event.finish == finish, "law 3, one ending", "an output finishes wrongly", request.id);
  if (event.finish != FinishReason::kNone) Close(client, event.index, tally_.finished);
}

void Simulation::TakeStopped(const TokenEvent& event, Client& client) {
  Require(client.request->time_limit <= now_ && event.finish == FinishReason::kTimeLimit, "law 3, one ending",
          "an output stops before its time limit", event.request_id);
  Output& output = client.outputs.at(event.index);
  Require(!output.over, "law 3, one ending", "an output stops after its end", event.request_id);
  output.over = true;
  if (!std::all_of(client.outputs.begin(), client.outputs.end(), [](const Output& o) { return o.over; })) return;
  client.over = true;
  std::erase(alive_, event.request_id);
  ++tally_.finished;
  ++tally_.time_limits;
}

void Simulation::TakeEnding(const TokenEvent& event, Client& client) {
  const Request& request = *client.request;
  const auto require = [&](bool condition, absl::string_view what) {
    Require(condition, "law 3, one ending", what, request.id);
  };
  const auto is_due = [](const Output& output) {
    return output.expected.finish == FinishReason::kNone && output.tokens == output.expected.tokens;
  };
  switch (event.ending) {
    case Ending::kFailed:
      require(!client.can_run || std::any_of(client.outputs.begin(), client.outputs.end(), is_due),
              "a finite request fails");
      break;
    case Ending::kExpired:
      require(request.deadline <= now_, "expires too early");
      break;
    case Ending::kQueueTimeExceeded:
      require(request.queue_deadline <= now_ && !client.started, "has waited too long, but did not");
      ++tally_.queue_times;
      break;
    case Ending::kDeadlineUnreachable:
      require(request.deadline != absl::InfiniteFuture() && !client.started, "cannot be in time, but could");
      ++tally_.unreachable;
      break;
    case Ending::kRefused:
      require(is_judged_ && !client.started && event.retry_delay() >= absl::Milliseconds(10) &&
                  event.retry_delay() <= absl::Seconds(60),
              "is refused without a word or late");
      ++tally_.refused;
      break;
    case Ending::kCancelled:
    case Ending::kEngineFailed:
    case Ending::kShutdown:
      break;
    default:
      require(false, "an ending without a reason");
  }
  client.over = true;
  std::erase(alive_, request.id);
  ++tally_.ended;
  tally_.ended_in_flight += client.num_in_flight > 0 ? 1 : 0;
}

void Simulation::Require(bool condition, absl::string_view law, absl::string_view what, RequestId id) {
  if (condition || violations_.size() >= 5) return;
  violations_.push_back(absl::StrCat(law, ": ", what));
  if (id != 0) absl::StrAppend(&violations_.back(), " (request ", id, ")");
}

}  // namespace quire
