#include "tests/scheduler/simulation.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

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
  const int32_t policy = random.Between(0, stress == Stress::kPolicies ? 1 : 9);
  if (policy == 0) options.policy = SchedulingPolicy::kPriority;
  if (policy == 1) options.policy = SchedulingPolicy::kFair;
  options.priority_aging = absl::Milliseconds(random.Between(1, 50));
  options.max_tenants = random.Between(1, 4);
  options.tenant_weights["a"] = random.Between(1, 30) / 10.0;
  if (stress == Stress::kAdmission) {
    options.limits = {.max_waiting_tokens = random.Between(20, 400),
                      .max_waiting_requests_per_tenant = random.Between(1, 12),
                      .max_waiting_tokens_per_tenant = random.Between(10, 300)};
  }
  options.num_blocks = longest_sequences * static_cast<int32_t>(MaxBlocks(options, kMaxModelLen));
  return options;
}

}  // namespace

Tally& Tally::operator+=(const Tally& other) {
  events += other.events;
  unreachable += other.unreachable;
  queue_times += other.queue_times;
  time_limits += other.time_limits;
  pauses += other.pauses;
  faults += other.faults;
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

Simulation::Simulation(Life life)
    : life_(std::move(life)),
      random_(TestRandom::Mix(life_.seed + 1)),
      stress_(life_.stress),
      options_(RandomOptions(stress_, random_)),
      scheduler_(options_),
      runner_(options_),
      num_to_come_(random_.Between(1, IsPreemption(stress_) ? 24 : 12)),
      leave_percent_(stress_ == Stress::kDepartures ? 10
                     : random_.Percent(50)          ? 0
                                                    : random_.Between(1, 20)),
      pause_percent_(random_.Percent(80) ? 0 : random_.Between(1, 20)),
      fault_percent_(random_.Percent(95) ? 0 : random_.Between(1, 5)),
      is_judged_(stress_ == Stress::kAdmission || random_.Percent(30)) {
  for (int32_t i = random_.Between(1, 40); i > 0; --i) shared_prefix_.push_back(random_.Between(0, 3));
}

std::vector<std::string> Simulation::Run() {
  const int32_t arrival_percent = random_.Between(5, 100);
  for (int32_t steps = 0; violations_.empty() && (num_to_come_ > 0 || !alive_.empty()); ++steps) {
    Require(steps < kMaxSteps, "law 2, progress", "a life does not end");
    while (num_to_come_ > 0 && random_.Percent(arrival_percent)) AddRandomRequest();
    Disturb();
    Step();
    CheckAccounts();
    now_ += absl::Microseconds(random_.Between(0, 300));
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
  const auto some_time = [&] { return now_ + absl::Milliseconds(random_.Between(0, 60)); };
  if (random_.Percent(stress_ == Stress::kAdmission ? 60 : 10)) request->deadline = some_time();
  if (random_.Percent(5)) request->queue_deadline = some_time();
  if (random_.Percent(5)) request->time_limit = some_time();
  request->priority = random_.Between(-2, 2);
  request->tenant = std::string(1, static_cast<char>('a' + random_.Between(0, 5)));
  return request;
}

void Simulation::AddRandomRequest() {
  --num_to_come_;
  const std::shared_ptr<const Request> request = RandomRequest();
  Client& client = clients_[request->id];
  client.request = request;
  client.outputs.resize(request->num_outputs);
  for (uint32_t i = 0; i < request->num_outputs; ++i) client.outputs[i].expected = FakeRunner::OutputOf(*request, i);
  client.over = true;
  client.last_event = now_;
  if (life_.no_requests.contains(num_requests_++)) return;
  ++tally_.events;
  const int64_t len = int64_t(request->prompt.size()) + request->max_tokens;
  client.can_run = !request->prompt.empty() && len <= kMaxModelLen &&
                   MaxBlocks(options_, static_cast<int32_t>(len) - 1) <= options_.num_blocks;
  if (is_judged_) {
    client.over = false;
    alive_.push_back(request->id);
    ++tally_.accepted;
    scheduler_.Submit(request, now_, events_);
    TakeEvents();
    return;
  }
  const bool accepted = scheduler_.Add(request).ok();
  Require(accepted == client.can_run, "law 2, progress", "a request that could never run is taken, or another refused");
  client.over = !accepted;
  if (accepted) alive_.push_back(request->id);
  ++(accepted ? tally_.accepted : tally_.refused);
}

bool Simulation::Acts(int32_t percent) {
  if (!random_.Percent(percent) || life_.no_acts.contains(num_acts_++)) return false;
  ++tally_.events;
  return true;
}

Simulation::Client& Simulation::RandomClient() {
  return clients_[alive_[random_.Between(0, static_cast<int32_t>(alive_.size()) - 1)]];
}

void Simulation::Disturb() {
  if (!alive_.empty() && Acts(leave_percent_)) Leave(RandomClient());
  if (!alive_.empty() && Acts(pause_percent_)) Pause(RandomClient());
  if (has_paused_) ResumeSome();
  if (!alive_.empty() && Acts(fault_percent_)) {
    scheduler_.EndAll(Ending::kEngineFailed, events_);
    TakeEvents();
    ++tally_.faults;
    Require(alive_.empty(), "law 3, one ending", "a request outlives the engine");
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
  scheduler_.Pause(id);
  scheduler_.Resume(id);
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

void Simulation::Pause(Client& client) {
  // Each pause throws away what was computed: who is paused again and again gets nowhere.
  constexpr int32_t kMaxPauses = 3;
  if (client.paused || ++client.num_pauses > kMaxPauses) return;
  client.paused = has_paused_ = true;
  scheduler_.Pause(client.request->id);
  ++tally_.pauses;
}

void Simulation::ResumeSome() {
  for (const RequestId id : alive_) {
    Client& client = clients_[id];
    if (!client.paused || !random_.Percent(20)) continue;
    client.paused = false;
    scheduler_.Resume(id);
  }
}

void Simulation::Expire() {
  scheduler_.Expire(now_, events_);
  TakeEvents();
  absl::Time earliest = absl::InfiniteFuture();
  for (const RequestId id : alive_) {
    const Client& client = clients_[id];
    earliest = std::min({earliest, client.request->deadline, client.request->time_limit});
    if (!client.started) earliest = std::min(earliest, client.request->queue_deadline);
  }
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
  ++tally_.events;
  now_ += absl::Microseconds(400 + 20 * batch_.num_tokens);
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
  const std::vector<OutputId> runnable = Runnable();
  Require(batch_.empty() == runnable.empty(), "law 2, progress", "a batch is empty while a sequence is runnable");
  Require(batch_.num_tokens <= options_.max_num_batched_tokens, "budget", "a step has too many tokens");
  Require(batch_.chunks.size() <= size_t(options_.max_num_seqs), "budget", "a step has too many sequences");
  Require(batch_.chunks.size() <= runnable.size(), "order", "more run than can");
  int32_t num_tokens = 0;
  for (const Chunk& chunk : batch_.chunks) num_tokens += chunk.count;
  Require(num_tokens == batch_.num_tokens, "budget", "num_tokens is not the sum of the chunks");
  if (batch_.chunks.size() <= runnable.size()) CheckOrder(runnable);
}

void Simulation::CheckOrder(const std::vector<OutputId>& runnable) {
  // Who resumes finds younger ones running, and a tenant's turn is none of arrival.
  const bool is_prefix =
      options_.policy == SchedulingPolicy::kPriority || (options_.policy == SchedulingPolicy::kFcfs && !has_paused_);
  if (!is_prefix || batch_.empty()) return;
  const std::set<OutputId> expected(runnable.begin(), runnable.begin() + batch_.chunks.size());
  for (const Chunk& chunk : batch_.chunks) {
    const RequestId id = chunk.sequence->request().id;
    Require(expected.contains({id, chunk.sequence->index()}), "order", "an output runs before its turn", id);
  }
  const OutputId first = runnable[0];
  const int32_t num_computed = clients_[first.first].outputs[first.second].num_computed;
  Require(first != oldest_ || batch_.chunks[0].begin == num_computed || has_paused_, "law 2, progress",
          "the first in the order was preempted");
  oldest_ = first;
}

void Simulation::CheckAccounts() {
  const SchedulerStats stats = scheduler_.stats();
  Require(stats.computed_tokens == num_told_ + stats.recomputed_tokens + stats.discarded_tokens, "accounts",
          "tokens computed are not those delivered, recomputed and discarded");
  Require(tally_.accepted == tally_.finished + tally_.ended + tally_.dropped + alive_.size(), "accounts",
          "requests received are not those finished, ended, dropped and alive");
  Require(size_t(stats.num_running + stats.num_waiting) == AliveSequences().size(), "accounts", "others are alive");
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

// -------------------------------------------------------------------------------------------------------- What
// clients are told

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
      require(is_judged_ && !client.started && event.retry_delay >= absl::Milliseconds(10) &&
                  event.retry_delay <= absl::Seconds(60),
              "is refused without a word or late");
      ++tally_.refused;
      break;
    case Ending::kCancelled:
    case Ending::kEngineFailed:
      break;
    default:
      require(false, "an ending without a reason");
  }
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

std::string Shrunk(const Life& life) {
  // A life ends at its first violation: how many requests and acts there are depends on what is left out.
  struct Broken {
    Life life;
    int32_t num_requests, num_acts;
    std::vector<std::string> violations;
  };
  const auto live = [](const Life& of) {
    Simulation simulation(of);
    std::vector<std::string> violations = simulation.Run();
    return Broken{of, simulation.num_requests(), simulation.num_acts(), std::move(violations)};
  };
  Broken smallest = live(life);
  if (smallest.violations.empty()) return "no violation";
  std::string text = absl::StrCat("seed ", life.seed, ", stress ", static_cast<int>(life.stress), ":\n",
                                  absl::StrJoin(smallest.violations, "\n"));
  const auto leave_out = [&](std::set<int32_t> Life::*what, int32_t Broken::*count) {
    for (int32_t size = std::max(1, smallest.*count / 2); size >= 1; size /= 2) {
      for (int32_t begin = 0; begin < smallest.*count; begin += size) {
        Life smaller = smallest.life;
        for (int32_t i = begin; i < begin + size; ++i) (smaller.*what).insert(i);
        if (smaller.*what == smallest.life.*what) continue;
        Broken remaining = live(smaller);
        if (!remaining.violations.empty()) smallest = std::move(remaining);
      }
    }
  };
  leave_out(&Life::no_requests, &Broken::num_requests);
  leave_out(&Life::no_acts, &Broken::num_acts);
  int32_t num_left = 0;
  for (int32_t i = 0; i < smallest.num_requests; ++i) num_left += smallest.life.no_requests.contains(i) ? 0 : 1;
  return absl::StrCat(text, "\nalso without the requests {", absl::StrJoin(smallest.life.no_requests, ", "),
                      "} and the acts {", absl::StrJoin(smallest.life.no_acts, ", "),
                      "}; requests that are left: ", num_left, "\n", absl::StrJoin(smallest.violations, "\n"));
}

}  // namespace quire
