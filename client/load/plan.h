// From the options to the requests of a run.

#ifndef QUIRE_CLIENT_LOAD_PLAN_H_
#define QUIRE_CLIENT_LOAD_PLAN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "client/load/dataset.h"
#include "client/load/options.h"
#include "client/load/runner.h"

namespace quire::client {

// What sets one run apart from the others of the same options, as the stages of a sweep are.
struct RunShape {
  size_t num_requests = 0;
  size_t num_warmups = 0;
  uint64_t seed = 0;  // of prompts, arrivals and draws
  ArrivalOptions arrivals;
  std::string id_prefix;  // of the request ids
};

struct Plans {
  LoadPlan measured;
  LoadPlan warmup;  // the next prompts of the dataset; at once, or as --max-concurrency allows
};

// A function of the arguments (corpus, sharegpt: and of the server's tokenizer). Errors: the dataset.
absl::StatusOr<Plans> MakePlans(const LoadOptions& options, const RunShape& shape, const PromptForm& form);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_PLAN_H_
