#include "tests/scheduler/simulation.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

constexpr int32_t kMaxModelLen = 64;
constexpr int32_t kMaxSteps = 20'000;  // of a life; one of them takes some hundred

bool IsPreemption(Stress stress) { return stress == Stress::kPreemption || stress == Stress::kPreemptionWithoutCache; }

// Blocks that a sequence of `len` tokens needs if it runs token by token: of each group those in which the positions
// that a row sees lie.
int64_t MaxBlocks(const SchedulerOptions& options, int32_t len) {
  int64_t blocks = 0;
  for (const int32_t window : options.kv_windows) {
    int32_t most = 0;
    for (int32_t row = 0; row < len; ++row) {
      const int32_t first_seen = window == 0 ? 0 : std::max(0, row - window + 1);
      most = std::max(most, row / options.block_size - first_seen / options.block_size + 1);
    }
    blocks += most;
  }
  return blocks;
}

// Pools from one that just holds the longest sequence to one in which nothing lacks.
SchedulerOptions RandomOptions(Stress stress, TestRandom& random) {
  SchedulerOptions options;
  options.max_model_len = kMaxModelLen;
  options.enable_prefix_caching = random.Percent(70);
  options.max_num_seqs = random.Between(1, 16);
  options.max_num_batched_tokens = random.Between(1, stress == Stress::kChunks ? 12 : 64);
  if (random.Between(0, 1) == 0) options.chunked_prefill_size = random.Between(1, 16);
  options.block_size = random.Percent(50) ? 8 : 16;
  if (random.Percent(20)) options.block_size = random.Between(1, 7);
  if (stress == Stress::kPrefixHits) options.enable_prefix_caching = true;
  if (stress == Stress::kPreemptionWithoutCache) options.enable_prefix_caching = false;
  int32_t longest_sequences = random.Between(1, 8);
  if (IsPreemption(stress)) {
    options.max_num_seqs = random.Between(4, 16);
    options.block_size = random.Percent(70) ? random.Between(1, 5) : 8;
    longest_sequences = random.Between(1, 2);
  }
  if (stress == Stress::kGroups || random.Percent(20)) {
    for (int32_t i = random.Between(0, 3); i > 0; --i) options.kv_windows.push_back(0);
    for (int32_t& window : options.kv_windows) window = random.Percent(40) ? 0 : random.Between(1, 40);
  }
  options.num_blocks = longest_sequences * static_cast<int32_t>(MaxBlocks(options, kMaxModelLen));
  return options;
}

}  // namespace

Tally& Tally::operator+=(const Tally& other) {
  accepted += other.accepted;
  refused += other.refused;
  finished += other.finished;
  ended += other.ended;
  dropped += other.dropped;
  ended_in_flight += other.ended_in_flight;
  partial_chunks += other.partial_chunks;
  preemptions += other.preemptions;
  block_copies += other.block_copies;
  cached_tokens += other.cached_tokens;
  cached_tokens_of_windows += other.cached_tokens_of_windows;
  return *this;
}

Simulation::Simulation(uint64_t seed, Stress stress)
    : random_(TestRandom::Mix(seed + 1)),
      stress_(stress),
      options_(RandomOptions(stress, random_)),
      scheduler_(options_),
      runner_(options_),
      num_to_come_(random_.Between(1, IsPreemption(stress) ? 24 : 12)),
      leave_percent_(stress == Stress::kDepartures ? 10
                     : random_.Percent(50)         ? 0
                                                   : random_.Between(1, 20)) {
  for (int32_t i = random_.Between(1, 40); i > 0; --i) shared_prefix_.push_back(random_.Between(0, 3));
}

std::vector<std::string> Simulation::Run() {
  const int32_t arrival_percent = random_.Between(5, 100);
  const int32_t shutdown_percent = random_.Percent(5) ? 5 : 0;
  for (int32_t steps = 0; violations_.empty() && (num_to_come_ > 0 || !alive_.empty()); ++steps) {
    Require(steps < kMaxSteps, "law 2, progress", "a life does not end");
    while (num_to_come_ > 0 && random_.Percent(arrival_percent)) AddRandomRequest();
    Disturb();
    if (random_.Percent(shutdown_percent)) {
      scheduler_.EndAll(Ending::kShutdown, events_);
      TakeEvents();
    }
    Step();
    now_ += absl::Milliseconds(1);
  }
  if (violations_.empty()) CheckAtEnd();
  tally_.partial_chunks = runner_.partial_chunks();
  tally_.preemptions = scheduler_.stats().preemptions;
  tally_.block_copies = runner_.block_copies();
  return violations_;
}

// ---------------------------------------------------------------------------------------------------------- What
// clients do

std::vector<uint32_t> Simulation::RandomPrompt() {
  std::vector<uint32_t> prompt;
  const int32_t share_percent = stress_ == Stress::kPrefixHits ? 80 : 30;
  if (random_.Percent(share_percent)) {
    prompt = shared_prefix_;
    if (!clients_.empty() && random_.Percent(50)) {  // the next turn of a conversation
      const auto it = std::next(clients_.begin(), random_.Between(0, static_cast<int32_t>(clients_.size()) - 1));
      prompt = it->second.request->prompt;
      const std::vector<uint32_t>& answer = it->second.outputs.back().tokens;
      prompt.insert(prompt.end(), answer.begin(), answer.end());
    }
    prompt.resize(std::min<size_t>(prompt.size(), random_.Between(0, kMaxModelLen)));
  }
  const bool is_short = random_.Percent(IsPreemption(stress_) ? 90 : 50);  // then much is left for the output
  const int32_t more = random_.Between(prompt.empty() ? 1 : 0, is_short ? 4 : 40);
  for (int32_t i = 0; i < more; ++i) prompt.push_back(random_.Between(0, FakeRunner::kVocabSize - 1));
  return prompt;
}

std::shared_ptr<const Request> Simulation::RandomRequest() {
  auto request = std::make_shared<Request>();
  request->id = clients_.size() + 1;
  request->prompt = RandomPrompt();
  const std::string salt = random_.Percent(15) ? "other tenant" : "";
  request->root_hash = RootHash(salt);
  if (!random_.Percent(5)) request->prompt_hashes = HashBlocks(salt, request->prompt, options_.block_size);
  request->use_prefix_cache = !random_.Percent(10);
  request->read_prefix_cache = !random_.Percent(10);
  request->sampling.seed =
      random_.Percent(4) ? FakeRunner::SeedThatFailsAt(random_.Between(0, 5)) : random_.Next() >> 8 << 8;
  if (random_.Percent(stress_ == Stress::kOutputs ? 70 : 15)) request->num_outputs = random_.Between(2, 6);
  request->max_tokens = random_.Between(1, random_.Percent(IsPreemption(stress_) ? 10 : 50) ? 8 : 40);
  request->min_tokens = random_.Percent(30) ? random_.Between(0, static_cast<int32_t>(request->max_tokens)) : 0;
  for (int32_t i = random_.Between(0, 2); i > 0; --i) {
    request->stop_ids.push_back(random_.Between(0, FakeRunner::kVocabSize - 1));
  }
  if (random_.Percent(10)) request->num_logprobs = random_.Between(0, 3);
  if (random_.Percent(15)) request->num_prompt_logprobs = random_.Between(0, 2);
  request->arrival = now_;
  if (random_.Percent(10)) request->deadline = now_ + absl::Milliseconds(random_.Between(0, 60));
  return request;
}

void Simulation::AddRandomRequest() {
  --num_to_come_;
  const std::shared_ptr<const Request> request = RandomRequest();
  const int64_t len = int64_t(request->prompt.size()) + request->max_tokens;
  const bool can_run = !request->prompt.empty() && len <= kMaxModelLen &&
                       MaxBlocks(options_, static_cast<int32_t>(len) - 1) <= options_.num_blocks;
  const bool accepted = scheduler_.Add(request).ok();
  Require(accepted == can_run, "law 2, progress", "a request that could never run is taken, or another refused");
  Client& client = clients_[request->id];
  client.request = request;
  client.outputs.resize(request->num_outputs);
  for (uint32_t i = 0; i < request->num_outputs; ++i) client.outputs[i].expected = FakeRunner::OutputOf(*request, i);
  client.over = !accepted;
  if (accepted) alive_.push_back(request->id);
  ++(accepted ? tally_.accepted : tally_.refused);
}

void Simulation::Disturb() {
  if (!alive_.empty() && random_.Percent(leave_percent_)) {
    Leave(clients_[alive_[random_.Between(0, static_cast<int32_t>(alive_.size()) - 1)]]);
  }
  Expire();
}

void Simulation::Leave(Client& client) {
  const RequestId id = client.request->id;
  if (random_.Percent(50)) {
    DropOutputs(client);
    if (!client.over) return;
  } else {
    scheduler_.End(id, Ending::kCancelled, events_);
  }
  TakeEvents();
  Require(client.over, "law 3, one ending", "a request was cancelled and got no ending", id);
  scheduler_.End(id, Ending::kCancelled, events_);  // a second time it means nothing
  TakeEvents();
}

void Simulation::DropOutputs(Client& client) {
  const RequestId id = client.request->id;
  const bool all = !client.forked || random_.Percent(50);
  for (uint32_t index = 0; index < client.outputs.size() && !client.over; ++index) {
    if (client.outputs[index].over || (!all && random_.Percent(50))) continue;
    scheduler_.Drop(id, index);
    Close(client, index, tally_.dropped);
  }
}

void Simulation::Close(Client& client, uint32_t index, uint64_t& tally) {
  client.outputs[index].over = true;
  const auto is_over = [&](const Output& output) { return output.over || !client.forked; };
  if (!std::all_of(client.outputs.begin(), client.outputs.end(), is_over)) return;
  client.over = true;
  std::erase(alive_, client.request->id);
  ++tally;
  if (&tally != &tally_.finished) tally_.ended_in_flight += client.in_flight ? 1 : 0;
}

void Simulation::Expire() {
  scheduler_.Expire(now_, events_);
  TakeEvents();
  absl::Time earliest = absl::InfiniteFuture();
  for (const RequestId id : alive_) earliest = std::min(earliest, clients_[id].request->deadline);
  Require(earliest > now_, "law 3, one ending", "a request outlives its deadline");
  Require(scheduler_.NextDeadline() == earliest, "law 3, one ending", "the next deadline is another");
}

// ------------------------------------------------------------------------------------------------------------ A step
// and its laws

void Simulation::Step() {
  scheduler_.Schedule(now_, batch_, events_);
  TakeEvents();
  CheckBatch();
  std::vector<OutputId> ids;
  bool forks = false;
  for (const Chunk& chunk : batch_.chunks) {
    ids.emplace_back(chunk.sequence->request().id, chunk.sequence->index());
    clients_[ids.back().first].in_flight = true;
    forks = forks || (chunk.samples && chunk.num_draws > 1);
  }
  CheckConservation();  // whoever runs is in the batch; nobody else holds a block

  if (random_.Percent(50)) Disturb();
  runner_.Run(batch_, result_);
  for (const std::string& violation : runner_.violations()) Require(false, "what the runner was given", violation);
  const auto is_over = [&](const OutputId& id) {
    return clients_[id.first].over || clients_[id.first].outputs[id.second].over;
  };
  std::set<RequestId> failed;  // of requests that fail in this step, the outputs behind are over too
  for (size_t i = 0; i < ids.size(); ++i) {
    const Chunk& chunk = batch_.chunks[i];
    if (!chunk.samples) continue;
    if (is_over(ids[i]) || failed.contains(ids[i].first)) {
      expected_discarded_ += chunk.num_draws;
    } else if (!FakeRunner::IsFiniteAt(chunk.sequence->request(), chunk.begin + chunk.count, ids[i].second)) {
      failed.insert(ids[i].first);
    }
  }

  scheduler_.Commit(now_, batch_, result_, events_);
  TakeEvents();
  for (size_t i = 0; i < ids.size(); ++i) {
    clients_[ids[i].first].in_flight = false;
    if (is_over(ids[i])) {
      batch_.chunks[i].sequence = nullptr;  // it is gone
    } else {
      clients_[ids[i].first].outputs[ids[i].second].num_computed = batch_.chunks[i].sequence->num_computed();
    }
  }
  if (!forks) CheckConservation();  // else there are sequences that no batch has named yet
}

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

void Simulation::CheckBatch() {
  Require(batch_.empty() == alive_.empty(), "law 2, progress", "a batch is empty while a sequence is runnable");
  Require(batch_.num_tokens <= options_.max_num_batched_tokens, "budget", "a step has too many tokens");
  Require(batch_.chunks.size() <= size_t(options_.max_num_seqs), "budget", "a step has too many sequences");
  const std::vector<OutputId> alive = AliveSequences();
  Require(batch_.chunks.size() <= alive.size(), "first come, first served", "more run than live");
  int32_t num_tokens = 0;
  for (size_t i = 0; i < batch_.chunks.size() && i < alive.size(); ++i) {
    num_tokens += batch_.chunks[i].count;
    const Sequence& sequence = *batch_.chunks[i].sequence;
    Require(OutputId(sequence.request().id, sequence.index()) == alive[i], "first come, first served",
            "an output does not run and a younger one does", alive[i].first);
  }
  Require(num_tokens == batch_.num_tokens, "budget", "num_tokens is not the sum of the chunks");
  if (batch_.empty()) return;
  Require(
      alive[0] != oldest_ || batch_.chunks[0].begin == clients_[alive[0].first].outputs[alive[0].second].num_computed,
      "law 2, progress", "the oldest sequence was preempted");
  oldest_ = alive[0];
}

void Simulation::CheckConservation() {
  const SchedulerStats stats = scheduler_.stats();
  Require(stats.blocks_free + stats.blocks_held + stats.blocks_cached == options_.num_blocks, "law 1, conservation",
          "free, held and reclaimable blocks are not all blocks");
  std::vector<bool> is_held(options_.num_blocks, false);
  for (const Chunk& chunk : batch_.chunks) {
    if (chunk.sequence == nullptr) continue;
    for (int32_t group = 0; group < chunk.sequence->num_groups(); ++group) {
      for (const BlockId block : chunk.sequence->block_table(group).blocks()) is_held[block] = true;
    }
  }
  Require(stats.blocks_held == std::count(is_held.begin(), is_held.end(), true), "law 1, conservation",
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
  Require(stats.blocks_held == 0, "law 1, conservation", "a block is held after the last request");
  Require(tally_.accepted == tally_.finished + tally_.ended + tally_.dropped, "law 3, one ending", "the sum");
  Require(stats.sampled_tokens == num_tokens, "counters", "sampled_tokens");
  Require(stats.prompt_tokens == prompt_tokens, "counters", "prompt_tokens");
  Require(stats.prefix_hits == tally_.cached_tokens, "counters", "prefix_hits is not the sum of cached_tokens");
  Require(stats.prefix_hits <= stats.prefix_queries, "counters", "prefix_queries");
  Require(stats.discarded_tokens == expected_discarded_, "counters", "discarded_tokens");
  Require(stats.recomputed_tokens == runner_.recomputed_tokens(), "counters", "recomputed_tokens");
}

// -------------------------------------------------------------------------------------------------------- What clients
// are told

void Simulation::TakeEvents() {
  for (const TokenEvent& event : events_) {
    Client& client = clients_[event.request_id];
    Require(!client.over, "law 3, one ending", "an event comes after the end", event.request_id);
    switch (event.kind) {
      case EventKind::kStarted: {
        Require(!client.started, "one start", "a request starts twice", event.request_id);
        const Request& request = *client.request;
        const bool may_hit = options_.enable_prefix_caching && request.use_prefix_cache && request.read_prefix_cache &&
                             !request.num_prompt_logprobs;
        Require(event.cached_tokens == 0 || may_hit, "law 7, prefix hits", "a request hits that does not read");
        Require(event.cached_tokens < request.prompt.size(), "law 7, prefix hits", "no token is left to run");
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
        Require(false, "law 3, one ending", "a request stops that has no time limit", event.request_id);
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
  Require(event.first_position == client.next_prompt_position && !event.logprobs.empty(), "prompt log-probabilities",
          "another position than the next", request.id);
  Require(event.top.size() == event.logprobs.size() * num_top, "prompt log-probabilities", "size of top");
  for (size_t i = 0; i < event.logprobs.size(); ++i) {
    const float logprob = FakeRunner::LogprobAt(request, client.next_prompt_position++);
    Require(event.logprobs[i] == logprob, "prompt log-probabilities", "of another position");
    for (uint32_t k = 0; k < num_top; ++k) {
      Require(event.top[i * num_top + k].logprob == logprob - float(k), "prompt log-probabilities", "top of another");
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
    Require(event.logprob == logprob && event.top.size() == *request.num_logprobs, "log-probabilities",
            "of another token", request.id);
    if (!event.top.empty()) Require(event.top[0].logprob == logprob, "log-probabilities", "top of another");
  }
  client.forked = true;
  output.tokens.push_back(event.token_id);

  const FakeRunner::Output& expected = output.expected;
  const size_t num_tokens = output.tokens.size();
  Require(num_tokens <= expected.tokens.size() && event.token_id == expected.tokens[num_tokens - 1], "laws 4, 6 and 7",
          "other tokens than alone", request.id);
  const FinishReason finish = num_tokens == expected.tokens.size() ? expected.finish : FinishReason::kNone;
  Require(event.finish == finish, "law 3, one ending", "an output finishes wrongly", request.id);
  if (event.finish != FinishReason::kNone) Close(client, event.index, tally_.finished);
}

void Simulation::TakeEnding(const TokenEvent& event, Client& client) {
  const Request& request = *client.request;
  if (event.ending == Ending::kFailed) {
    const auto is_due = [](const Output& output) {
      return output.expected.finish == FinishReason::kNone && output.tokens == output.expected.tokens;
    };
    Require(std::any_of(client.outputs.begin(), client.outputs.end(), is_due), "law 3, one ending",
            "a finite request fails");
  }
  Require(event.ending != Ending::kNone, "law 3, one ending", "an ending without a reason");
  if (event.ending == Ending::kExpired) Require(request.deadline <= now_, "law 3, one ending", "expires too early");
  client.over = true;
  std::erase(alive_, request.id);
  ++tally_.ended;
  tally_.ended_in_flight += client.in_flight ? 1 : 0;
}

void Simulation::Require(bool condition, absl::string_view law, absl::string_view what, RequestId id) {
  if (condition || violations_.size() >= 5) return;
  violations_.push_back(absl::StrCat(law, ": ", what));
  if (id != 0) absl::StrAppend(&violations_.back(), " (request ", id, ")");
}

}  // namespace quire
