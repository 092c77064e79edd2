// What the tests of the engine share: a sink that collects, requests in one line, the bundled model.

#ifndef QUIRE_TESTS_ENGINE_ENGINE_TESTING_H_
#define QUIRE_TESTS_ENGINE_ENGINE_TESTING_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/load_model.h"
#include "engine/model_config.h"
#include "nlohmann/json.hpp"

namespace quire {

// Everything that came out of one output of a request.
struct Output {
  int num_started = 0;
  int num_endings = 0;  // of any kind: law 3 allows one
  uint32_t cached_tokens = 0;
  std::vector<uint32_t> tokens;
  std::vector<float> logprobs;
  std::vector<TokenLogprob> top;
  std::vector<float> prompt_logprobs;  // from position 1 on
  std::vector<TokenLogprob> prompt_top;
  FinishReason finish = FinishReason::kNone;
  Ending ending = Ending::kNone;
};

// Bitwise, log-probabilities too.
bool operator==(const Output& a, const Output& b);

// What CollectingSink keeps output `index` under; that of output 0 is the request's id.
inline RequestId OutputKey(RequestId id, uint32_t index) { return id + (RequestId{index} << 32); }

// Keeps all events by output; tests wait on it instead of sleeping.
class CollectingSink : public EventSink {
 public:
  void OnEvents(std::vector<TokenEvent>& events) override;
  void OnEngineFailure(const absl::Status& status) override;

  // Blocks until `condition` holds of the outputs so far.
  void WaitUntil(const std::function<bool(const std::map<RequestId, Output>&)>& condition);
  // Blocks until an output is over.
  Output Wait(RequestId key);

  std::map<RequestId, Output> outputs();
  std::vector<absl::Status> failures();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Output> outputs_;
  std::vector<absl::Status> failures_;
};

// A greedy request without stop ids.
std::shared_ptr<Request> MakeRequest(RequestId id, std::vector<uint32_t> prompt, uint32_t max_tokens);

// The same, one that finds its prompt's full blocks in the prefix cache and leaves them there.
std::shared_ptr<Request> MakeCachedRequest(RequestId id, std::vector<uint32_t> prompt, uint32_t max_tokens,
                                           int32_t block_size);

// The name of a fixture model as a test's.
std::string ModelTestName(std::string model);

// `length` token ids below `vocab_size`, a function of `seed`.
std::vector<uint32_t> RandomPrompt(uint64_t seed, size_t length, uint32_t vocab_size);

// Submits all, waits for all; by id. The engine is shut down afterwards; `stats`, if given, is what its scheduler
// counted.
std::map<RequestId, Output> RunAll(const SchedulerOptions& options, std::unique_ptr<ModelRunner> runner,
                                   const std::vector<std::shared_ptr<const Request>>& requests,
                                   SchedulerStats* stats = nullptr);

// What a model of these options answers to each request alone; by id.
std::map<RequestId, Output> RunAlone(const EngineOptions& options,
                                     const std::vector<std::shared_ptr<const Request>>& requests);

// Expects the same outputs, bitwise, each of them with tokens and complete.
void ExpectSame(const std::map<RequestId, Output>& got, const std::map<RequestId, Output>& want);

std::unique_ptr<Backend> MakeBackend(BackendKind kind);  // with one thread

// config.json of Llama-3-8B as the hub has it, for tests to change.
nlohmann::json Llama3Json();
// What the engine makes of a config.json. REQUIRES: it is valid.
ModelConfig ConfigOf(const nlohmann::json& json);

std::string BundledModel();  // its directory
EngineOptions BundledModelOptions(BackendKind kind);

// The tiny models of tests/oracle/fixtures/families, by name: NAME for a directory, NAME/model.gguf for a file; the
// path of one; options that suit any of them.
std::vector<std::string> FamilyModels();
std::string FamilyModel(const std::string& name);
EngineOptions FamilyModelOptions(const std::string& name, BackendKind kind);

}  // namespace quire

#endif  // QUIRE_TESTS_ENGINE_ENGINE_TESTING_H_
