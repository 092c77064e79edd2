#include "client/load/plan.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/parse.h"

namespace quire::client {
namespace {

// Request `index`: what all share, and its own prompt, lengths, id and seed.
v1::GenerateRequest MakeRequest(const LoadOptions& options, const RunShape& shape, const Prompt& prompt, size_t index) {
  v1::GenerateRequest request = options.request;
  request.set_model(options.connection.model);
  request.set_request_id(absl::StrCat(shape.id_prefix, index));
  if (prompt.ids.empty()) {
    request.set_text(prompt.text);
  } else {
    request.mutable_tokens()->mutable_ids()->Add(prompt.ids.begin(), prompt.ids.end());
  }
  request.mutable_stopping()->set_max_tokens(prompt.output_len);
  const bool is_random = options.dataset.name == "random" || options.dataset.name == "trace";
  request.mutable_stopping()->set_ignore_eos(options.ignore_eos || is_random);
  request.mutable_sampling()->set_seed(shape.seed + index);
  request.mutable_output()->set_text(true);
  return request;
}

// One of the mix's texts, each as often as its weight says.
class MixDraw {
 public:
  explicit MixDraw(const Mix& mix) : mix_(mix) {
    std::vector<double> weights;
    for (const auto& [text, weight] : mix) {
      weights.push_back(weight);
    }
    index_ = std::discrete_distribution<size_t>(weights.begin(), weights.end());
  }

  const std::string& operator()(std::mt19937_64& random) { return mix_[index_(random)].first; }

 private:
  const Mix& mix_;
  std::discrete_distribution<size_t> index_;
};

// Gives each request its tenant, its deadline and its end before the time, as far as they are asked for.
void DrawTroubles(const LoadOptions& options, uint64_t seed, std::vector<PlannedRequest>& requests) {
  std::mt19937_64 random(seed + 0x9E3779B97F4A7C15);  // of another sequence than prompts and arrivals
  MixDraw tenant(options.tenant_mix), deadline(options.deadline_mix);
  std::bernoulli_distribution cancel(options.cancellation_percent / 100);
  for (PlannedRequest& planned : requests) {
    if (!options.tenant_mix.empty()) {
      planned.request.mutable_scheduling()->set_tenant(tenant(random));
    }
    if (!options.deadline_mix.empty()) {
      planned.deadline = ParseDuration(deadline(random)).value();
    }
    if (cancel(random)) {
      const uint32_t most = std::max(1u, planned.request.stopping().max_tokens());
      planned.cancel_after_tokens = std::uniform_int_distribution<uint32_t>(1, most)(random);
    }
  }
}

}  // namespace

absl::StatusOr<Plans> MakePlans(const LoadOptions& options, const RunShape& shape, const PromptForm& form) {
  absl::StatusOr<std::vector<Prompt>> prompts =
      MakePrompts(options.dataset, shape.num_requests + shape.num_warmups, shape.seed, form);
  if (!prompts.ok()) {
    return prompts.status();
  }
  Plans plans;
  LoadPlan& measured = plans.measured;
  for (size_t i = 0; i < prompts->size(); ++i) {
    (i < shape.num_requests ? measured : plans.warmup)
        .requests.push_back({MakeRequest(options, shape, (*prompts)[i], i), 0, std::nullopt});
  }
  measured.max_concurrency = plans.warmup.max_concurrency = options.max_concurrency;
  DrawTroubles(options, shape.seed, measured.requests);
  measured.keep_token_ids = options.replay_check > 0;
  measured.keep_text = options.save_detailed || options.replay_check > 0;
  measured.read_delay = absl::Milliseconds(options.read_delay_ms);
  measured.max_seconds = options.max_seconds;
  if (shape.arrivals.open_loop()) {
    // Of another sequence than the prompts', which begin from the seed itself.
    measured.arrivals_s = ArrivalTimes(shape.num_requests, shape.arrivals, ~shape.seed);
  } else if (options.dataset.name == "trace") {
    for (size_t i = 0; i < shape.num_requests; ++i) {
      measured.arrivals_s.push_back((*prompts)[i].arrival_s);
    }
  }
  return plans;
}

}  // namespace quire::client
