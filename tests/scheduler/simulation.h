// Simulation: a random life of a Scheduler under a FakeRunner, a function of its seed.
//
// Clients come with random prompts (some share a prefix, some continue an earlier conversation), limits, stop ids and
// deadlines, and leave at random moments, also while a batch is in flight. After each act every law is checked against
// a plain model: the list of requests that are alive, in order of arrival, and what each of them has been told.

#ifndef QUIRE_TESTS_SCHEDULER_SIMULATION_H_
#define QUIRE_TESTS_SCHEDULER_SIMULATION_H_

#include <cstdint>
#include <map>
#include <memory>
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
  kOutputs
};

// What happened in a life, so that a test can see that its law was tried at all.
struct Tally {
  uint64_t accepted = 0, refused = 0;
  uint64_t finished = 0, ended = 0, dropped = 0;
  uint64_t ended_in_flight = 0;
  uint64_t partial_chunks = 0;
  uint64_t preemptions = 0;
  uint64_t block_copies = 0;
  uint64_t cached_tokens = 0;
  uint64_t cached_tokens_of_windows = 0;  // in lives of which a group has a window

  Tally& operator+=(const Tally& other);
};

class Simulation {
 public:
  Simulation(uint64_t seed, Stress stress);

  // Lives until every request is over. Returns what went wrong, one line each; nothing if all laws held.
  std::vector<std::string> Run();

  const Tally& tally() const { return tally_; }

 private:
  // One output of a request.
  struct Output {
    FakeRunner::Output expected;
    bool over = false;             // complete, dropped, or ended with its request
    int32_t num_computed = 0;      // after the last commit that named it
    std::vector<uint32_t> tokens;  // so far
  };
  // A request as its client sees it.
  struct Client {
    std::shared_ptr<const Request> request;
    std::vector<Output> outputs;
    bool started = false;
    bool forked = false;  // a token came: from now on each output is a sequence
    bool over = false;    // all outputs are, or it got its ending, or was refused
    bool in_flight = false;
    uint32_t next_prompt_position = 1;  // whose log-probability comes next
  };
  using OutputId = std::pair<RequestId, uint32_t>;

  std::shared_ptr<const Request> RandomRequest();
  std::vector<uint32_t> RandomPrompt();
  void AddRandomRequest();
  // One or no request leaves or expires.
  void Disturb();
  void Leave(Client& client);
  void DropOutputs(Client& client);
  // The output gets no more; with the last one its request is over.
  void Close(Client& client, uint32_t index, uint64_t& tally);
  void Expire();
  void Step();

  // The checks. `Require` notes a violation, of request `id` if it is of one, unless the condition holds.
  void CheckBatch();
  void CheckConservation();
  // The sequences of all requests that are alive, in the order in which they are served.
  std::vector<OutputId> AliveSequences() const;
  void CheckAtEnd();
  void TakeEvents();
  void TakeToken(const TokenEvent& event, Client& client);
  void TakePromptLogprobs(const TokenEvent& event, Client& client);
  void TakeEnding(const TokenEvent& event, Client& client);
  void Require(bool condition, absl::string_view law, absl::string_view what, RequestId id = 0);

  TestRandom random_;
  Stress stress_;
  SchedulerOptions options_;
  Scheduler scheduler_;
  FakeRunner runner_;
  absl::Time now_ = absl::UnixEpoch();
  int32_t num_to_come_;
  int32_t leave_percent_;
  std::vector<uint32_t> shared_prefix_;

  std::map<RequestId, Client> clients_;  // by id, that is in order of arrival
  std::vector<RequestId> alive_;         // in order of arrival
  OutputId oldest_ = {0, 0};             // of the last batch
  Batch batch_;
  StepResult result_;
  std::vector<TokenEvent> events_;
  uint64_t expected_discarded_ = 0;
  Tally tally_;
  std::vector<std::string> violations_;
};

}  // namespace quire

#endif  // QUIRE_TESTS_SCHEDULER_SIMULATION_H_
