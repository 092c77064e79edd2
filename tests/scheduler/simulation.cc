#include "tests/scheduler/simulation.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "tests/fail_points.h"

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
SchedulerOptions RandomOptions(const Life& life, TestRandom& random) {
  const Stress stress = life.stress;
  SchedulerOptions options;
  options.run_ahead = life.run_ahead;
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
  engine_ends += other.engine_ends;
  runner_errors += other.runner_errors;
  block_faults += other.block_faults;
  slow_steps += other.slow_steps;
  failed_rows += other.failed_rows;
  accepted += other.accepted;
  refused += other.refused;
  finished += other.finished;
  ended += other.ended;
  dropped += other.dropped;
  ended_in_flight += other.ended_in_flight;
  drawn_taken += other.drawn_taken;
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
      options_(RandomOptions(life_, random_)),
      scheduler_(options_),
      runner_(options_),
      num_to_come_(random_.Between(1, IsPreemption(stress_) ? 24 : 12)),
      leave_percent_(stress_ == Stress::kDepartures ? 10
                     : random_.Percent(50)          ? 0
                                                    : random_.Between(1, 20)),
      pause_percent_(random_.Percent(80) ? 0 : random_.Between(1, 20)),
      end_percent_(random_.Percent(95) ? 0 : random_.Between(1, 5)),
      slow_percent_(random_.Percent(stress_ == Stress::kFaults ? 50 : 95) ? 0 : random_.Between(1, 20)),
      error_percent_(random_.Percent(stress_ == Stress::kFaults ? 50 : 98) ? 0 : random_.Between(1, 3)),
      block_percent_(random_.Percent(stress_ == Stress::kFaults ? 20 : 95) ? 0 : random_.Between(1, 60)),
      is_judged_(stress_ == Stress::kAdmission || random_.Percent(30)) {
  for (int32_t i = random_.Between(1, 40); i > 0; --i) shared_prefix_.push_back(random_.Between(0, 3));
}

std::vector<std::string> Simulation::Run() {
  const int32_t arrival_percent = random_.Between(5, 100);
  std::optional<ScopedFailPoint> block_allocation;
  if (block_percent_ > 0) {
    block_allocation.emplace(FailPoint::kBlockAllocation, [this] {
      const bool fails = Acts(block_percent_);
      tally_.block_faults += fails ? 1 : 0;
      return fails;
    });
  }
  for (int32_t steps = 0; violations_.empty() && (num_to_come_ > 0 || !alive_.empty() || !flights_.empty()); ++steps) {
    Require(steps < kMaxSteps, "law 2, progress", "a life does not end");
    while (num_to_come_ > 0 && random_.Percent(arrival_percent)) AddRandomRequest();
    Disturb();
    Step();
    CheckAccounts();
    if (has_failed_) break;  // what is in flight never comes
    now_ += absl::Microseconds(random_.Between(0, 300));
  }
  if (violations_.empty()) CheckAtEnd();
  tally_.partial_chunks = runner_.partial_chunks();
  tally_.preemptions = scheduler_.stats().preemptions;
  tally_.block_copies = runner_.block_copies();
  return violations_;
}

// ---------------------------------------------------------------------------------------------------------------------
// What clients do

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
  request->sampling.seed = random_.Percent(stress_ == Stress::kFaults ? 20 : 4)
                               ? FakeRunner::SeedThatFailsAt(random_.Between(0, 5))
                               : random_.Next() >> 8 << 8;
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
  if (!alive_.empty() && Acts(end_percent_)) {
    scheduler_.EndAll(Ending::kShutdown, events_);
    TakeEvents();
    ++tally_.engine_ends;
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
  if (&tally != &tally_.finished) tally_.ended_in_flight += client.num_in_flight > 0 ? 1 : 0;
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

// ---------------------------------------------------------------------------------------------------------------------
// A step

void Simulation::Step() {
  Batch& batch = flights_.emplace_back().batch;
  scheduler_.Schedule(now_, batch, events_);
  TakeEvents();
  CheckBatch();
  const bool is_empty = batch.empty();
  if (is_empty) {
    flights_.pop_back();
    if (random_.Percent(50)) Disturb();
    now_ += absl::Microseconds(400);
  } else {
    Launch();
    if (has_failed_) return;
  }
  if (flights_.size() > size_t(is_empty ? 0 : options_.run_ahead)) CommitOldest();
}

void Simulation::Launch() {
  Flight& flight = flights_.back();
  for (const Chunk& chunk : flight.batch.chunks) {
    const OutputId id = flight.ids.emplace_back(chunk.sequence->request().id, chunk.sequence->index());
    Client& client = clients_[id.first];
    ++client.num_in_flight;
    client.outputs[id.second].num_computed = chunk.begin + chunk.count;
    client.outputs[id.second].sequence = chunk.sequence;
    tally_.drawn_taken += chunk.takes_drawn ? 1 : 0;
    const KvTableLayout layout{.block_size = options_.block_size, .windows = options_.kv_windows};
    for (int32_t group = 0; group < layout.num_groups(); ++group) {
      const BlockTable& table = chunk.sequence->block_table(group);
      const int32_t first = layout.NumPassed(layout.windows[group], chunk.begin);
      for (int32_t i = first; i < table.size(); ++i) flight.blocks.push_back(table[i]);
    }
  }
  CheckConservation(flight);

  if (random_.Percent(50)) Disturb();
  if (Acts(error_percent_)) return FailStep();
  if (Acts(slow_percent_)) {
    now_ += absl::Milliseconds(random_.Between(1, 100));
    ++tally_.slow_steps;
  }
  runner_.Run(flight.batch, flight.result);
  ++tally_.events;
  now_ += absl::Microseconds(400 + 20 * flight.batch.num_tokens);
  for (const std::string& violation : runner_.violations()) Require(false, "what the runner was given", violation);
}

void Simulation::CommitOldest() {
  const Flight flight = std::move(flights_.front());
  flights_.pop_front();
  std::set<RequestId> failed;  // of requests that fail in this step, the outputs behind are over too
  bool forks = false;
  for (size_t i = 0; i < flight.ids.size(); ++i) {
    const Chunk& chunk = flight.batch.chunks[i];
    if (!chunk.samples) continue;
    forks = forks || chunk.num_draws > 1;
    if (IsOver(flight.ids[i]) || failed.contains(flight.ids[i].first)) {
      expected_discarded_ += chunk.num_draws;
    } else if (!FakeRunner::IsFiniteAt(chunk.sequence->request(), chunk.begin + chunk.count, flight.ids[i].second)) {
      failed.insert(flight.ids[i].first);
      ++tally_.failed_rows;
    }
  }
  if (options_.run_ahead > 0) runner_.Collect();
  scheduler_.Commit(now_, flight.batch, flight.result, events_);
  TakeEvents();
  for (const OutputId& id : flight.ids) --clients_[id.first].num_in_flight;
  if (!forks) CheckConservation(flight);  // else there are sequences that no batch has named yet
}

bool Simulation::IsOver(const OutputId& id) const {
  const Client& client = clients_.at(id.first);
  return client.over || client.outputs[id.second].over;
}

bool Simulation::IsInFlight(const OutputId& id) const {
  return std::any_of(flights_.begin(), flights_.end(), [&](const Flight& flight) {
    return std::find(flight.ids.begin(), flight.ids.end(), id) != flight.ids.end();
  });
}

void Simulation::FailStep() {
  scheduler_.EndAll(Ending::kEngineFailed, events_);
  TakeEvents();
  ++tally_.runner_errors;
  has_failed_ = true;
  num_to_come_ = 0;
  Require(alive_.empty(), "law 3, one ending", "a request outlives the engine");
  CheckConservation(flights_.back());  // what the batch names stays
}

}  // namespace quire
