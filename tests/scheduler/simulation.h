// Simulation: a random life of a Scheduler under a FakeRunner and a virtual clock, a function of its seed.
//
// Clients of several tenants and priorities come with random prompts (some share a prefix, some continue an earlier
// conversation), limits, stop ids and deadlines, stop reading for a while, and leave at random moments, also while a
// batch is in flight, or two; the pool fails to give a block, rows are not finite, steps are slow, the device fails and
// all ends in the middle of a step. After each act every law is checked against a plain model: the list of requests
// that are alive, in order of arrival, and what each of them has been told.
//
// A life that breaks a law can be shrunk: requests and acts are left out one after another, as long as it still does.

#ifndef QUIRE_TESTS_SCHEDULER_SIMULATION_H_
#define QUIRE_TESTS_SCHEDULER_SIMULATION_H_

#include <cstdint>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "scheduler/scheduler.h"
#include "tests/scheduler/fake_runner.h"

namespace quire {

// What the schedules of a test have more of than others.
enum class Stress {
  kNothing,
  kChunks,
  kPreemption,
  kPreemptionWithoutCache,
  kPrefixHits,
  kDepartures,
  kGroups,
  kOutputs,
  kPolicies,
  kAdmission,
  kFaults,
};
constexpr int kNumStresses = 11;

// What happened in a life, so that a test can see that its law was tried at all.
struct Tally {
  uint64_t events = 0;  // requests, steps, what clients do, and what they are told
  uint64_t accepted = 0, refused = 0;
  uint64_t finished = 0, ended = 0, dropped = 0;
  uint64_t unreachable = 0, queue_times = 0, time_limits = 0, pauses = 0;
  uint64_t engine_ends = 0, runner_errors = 0, block_faults = 0, slow_steps = 0, failed_rows = 0;
  uint64_t ended_in_flight = 0;
  uint64_t drawn_taken = 0;  // chunks that begin with a token that the host has not seen
  uint64_t partial_chunks = 0;
  uint64_t preemptions = 0;
  uint64_t block_copies = 0;
  uint64_t cached_tokens = 0;
  uint64_t cached_tokens_of_windows = 0;  // in lives of which a group has a window

  Tally& operator+=(const Tally& other);
};

// Which life: all that it depends on.
struct Life {
  uint64_t seed = 0;
  Stress stress = Stress::kNothing;
  int32_t run_ahead = 0;
  // What is left out, by number: requests, and acts of clients and faults (Disturb).
  std::set<int32_t> no_requests, no_acts;
  // A law that no scheduler keeps, to try what follows: no request of `planted_fault` tokens of prompt or more starts.
  int32_t planted_fault = std::numeric_limits<int32_t>::max();
};

class Simulation {
 public:
  explicit Simulation(Life life);

  // Lives until every request is over. Returns what went wrong, one line each; nothing if all laws held.
  std::vector<std::string> Run();

  const Tally& tally() const { return tally_; }
  int32_t num_requests() const { return num_requests_; }
  int32_t num_acts() const { return num_acts_; }

 private:
  // One output of a request.
  struct Output {
    FakeRunner::Output expected;
    bool over = false;                   // complete, dropped, or ended with its request
    int32_t num_computed = 0;            // after the last batch that named it
    std::vector<uint32_t> tokens;        // so far
    const Sequence* sequence = nullptr;  // since a batch named it, until it is over
  };
  // A request as its client sees it.
  struct Client {
    std::shared_ptr<const Request> request;
    std::vector<Output> outputs;
    bool started = false;
    bool forked = false;  // a token came: from now on each output is a sequence
    bool can_run = false;
    bool paused = false;
    int32_t num_pauses = 0;
    bool over = false;  // all outputs are, or it got its ending, or was refused
    absl::Time last_event;
    int32_t num_in_flight = 0;          // chunks
    uint32_t next_prompt_position = 1;  // whose log-probability comes next
  };
  using OutputId = std::pair<RequestId, uint32_t>;
  // A batch that is not committed.
  struct Flight {
    Batch batch;
    StepResult result;
    std::vector<OutputId> ids;    // of the chunks
    std::vector<BlockId> blocks;  // that it reads or writes
  };

  std::shared_ptr<const Request> RandomRequest();
  std::vector<uint32_t> RandomPrompt();
  void AddRandomRequest();
  // One or no request leaves, stops or begins to read; perhaps the engine ends all; some expire.
  void Disturb();
  // Whether the next act is done, and not left out.
  bool Acts(int32_t percent);
  Client& RandomClient();
  void Leave(Client& client);
  void DropOutputs(Client& client);
  // The output gets no more; with the last one its request is over.
  void Close(Client& client, uint32_t index, uint64_t& tally);
  void Pause(Client& client);
  void ResumeSome();
  void Expire();
  void Step();
  // Runs what was scheduled.
  void Launch();
  void CommitOldest();
  // The runner fails instead of bringing a result.
  void FailStep();

  // The checks. `Require` notes a violation, of request `id` if it is of one, unless the condition holds.
  void CheckBatch();
  // Those that can run, as the policy orders them (kFair: in order of arrival).
  std::vector<OutputId> Runnable() const;
  void CheckOrder(const std::vector<OutputId>& runnable);
  bool IsOver(const OutputId& id) const;
  bool IsInFlight(const OutputId& id) const;
  // Why a sequence may be passed over although its turn has come: a batch in flight names it, or keeps the blocks of
  // somebody who runs no more.
  bool IsExcused(const OutputId& id) const;
  // Nobody holds a block but those that the batch names; while others are in flight, also those who wait for them.
  void CheckConservation(const Flight& flight);
  // The sequences of all requests that are alive, in the order in which they are served.
  std::vector<OutputId> AliveSequences() const;
  void CheckAccounts();
  void CheckAtEnd();
  void TakeEvents();
  void TakeToken(const TokenEvent& event, Client& client);
  void TakePromptLogprobs(const TokenEvent& event, Client& client);
  void TakeStopped(const TokenEvent& event, Client& client);
  void TakeEnding(const TokenEvent& event, Client& client);
  void Require(bool condition, absl::string_view law, absl::string_view what, RequestId id = 0);

  const Life life_;
  TestRandom random_;
  const Stress stress_;
  SchedulerOptions options_;
  Scheduler scheduler_;
  FakeRunner runner_;
  absl::Time now_ = absl::UnixEpoch();
  int32_t num_to_come_;
  int32_t num_requests_ = 0, num_acts_ = 0;
  int32_t leave_percent_, pause_percent_;
  // Of the engine ending all requests, of steps that are slow or that the runner fails in, of blocks asked for.
  int32_t end_percent_, slow_percent_, error_percent_, block_percent_;
  bool is_judged_;           // requests come by Submit, which may refuse them
  bool has_paused_ = false;  // some request was
  bool has_failed_ = false;  // the runner did: nothing can go on, the batch in flight is never committed
  std::vector<uint32_t> shared_prefix_;

  std::map<RequestId, Client> clients_;  // by id, that is in order of arrival
  std::vector<RequestId> alive_;         // in order of arrival
  OutputId oldest_ = {0, 0};             // of the last batch
  std::list<Flight> flights_;            // the oldest first; the last may be one that is being made
  std::vector<TokenEvent> events_;
  uint64_t num_told_ = 0;  // tokens that clients got
  uint64_t expected_discarded_ = 0;
  Tally tally_;
  std::vector<std::string> violations_;
};

// The violations of a life, and the smallest life found in which some remain: as text for a failed test.
std::string Shrunk(const Life& life);

}  // namespace quire

#endif  // QUIRE_TESTS_SCHEDULER_SIMULATION_H_
