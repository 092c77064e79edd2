// Sample and Score as sampling.h defines them: sort the vocabulary, sum in plain loops.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/sampling/adjust.h"
#include "kernels/sampling/impl.h"
#include "kernels/sampling/philox.h"
#include "kernels/sampling/sampling.h"
#include "kernels/sampling/weight.h"

namespace quire {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A row of the vocabulary: logits by id.
using Logits = std::vector<float>;

bool IsFinite(const Logits& logits) {
  const auto bad = [](float logit) { return std::isnan(logit) || logit == kInfinity; };
  return std::none_of(logits.begin(), logits.end(), bad) &&
         std::any_of(logits.begin(), logits.end(), [](float logit) { return std::isfinite(logit); });
}

// The ids by falling logit, then rising id.
std::vector<uint32_t> Order(const Logits& logits) {
  std::vector<uint32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
  return ids;
}

// The weight of each id at 1 / temperature = `inverse`.
std::vector<uint64_t> Weights(const Logits& logits, float inverse) {
  const float max = *std::max_element(logits.begin(), logits.end());
  std::vector<uint64_t> weights(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = sampling::WeightOf((logits[i] - max) * inverse);
  return weights;
}

uint64_t Sum(const std::vector<uint64_t>& weights) {
  return std::accumulate(weights.begin(), weights.end(), uint64_t{0});
}

// REQUIRES: IsFinite(logits).
class Logprobs {
 public:
  explicit Logprobs(const Logits& logits)
      : logits_(logits),
        max_(*std::max_element(logits.begin(), logits.end())),
        log_sum_(std::log(static_cast<double>(Sum(Weights(logits, 1.0f))) / sampling::kWeightOne)) {}

  float Of(uint32_t id) const { return static_cast<float>((double{logits_[id]} - max_) - log_sum_); }

  // Writes the `count` best, or all if there are fewer.
  void Top(int32_t count, TokenLogprob* top) const {
    const std::vector<uint32_t> order = Order(logits_);
    for (size_t i = 0; i < std::min<size_t>(count, order.size()); ++i) top[i] = {order[i], Of(order[i])};
  }

 private:
  const Logits& logits_;
  double max_;
  double log_sum_;
};

// Sets to 0 the weights that the filters of `params` remove.
void Filter(const Logits& logits, const SamplingParams& params, std::vector<uint64_t>& weights) {
  const std::vector<uint32_t> order = Order(logits);
  if (params.top_k > 0) {
    for (size_t i = params.top_k; i < order.size(); ++i) weights[order[i]] = 0;
  }
  if (params.top_p < 1.0f) {
    const auto target = static_cast<uint64_t>(std::ceil(double{params.top_p} * static_cast<double>(Sum(weights))));
    uint64_t sum = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0 && sum >= target) {
        weights[order[i]] = 0;
      } else {
        sum += weights[order[i]];
      }
    }
  }
  for (uint64_t& weight : weights) {
    if (static_cast<double>(weight) < double{params.min_p} * sampling::kWeightOne) weight = 0;
  }
}

// Steps 1 to 4.
Logits Adjusted(const Logits& raw, const SampleRow& row, const SampledToken* drawn) {
  Logits logits = raw;
  if (!row.allowed.empty()) {
    logits.assign(raw.size(), -kInfinity);
    for (const uint32_t id : row.allowed) logits[id] = raw[id];
  }
  for (const uint32_t id : row.banned) logits[id] = -kInfinity;
  for (const TokenBias& token : row.bias) logits[token.id] = Biased(logits[token.id], token.bias);
  ForEachCount(row, drawn,
               [&](const TokenCount& token) { logits[token.id] = Penalized(logits[token.id], *row.params, token); });
  return logits;
}

uint32_t Draw(const Logits& logits, const SampleRow& row) {
  const SamplingParams& params = *row.params;
  if (params.temperature == 0) return Order(logits)[0];
  std::vector<uint64_t> weights =
      Weights(logits, std::min(1.0f / params.temperature, std::numeric_limits<float>::max()));
  Filter(logits, params, weights);
  uint64_t left = RandomBelow(RandomBits(params.seed, row.position), Sum(weights));
  uint32_t id = 0;
  while (left >= weights[id]) left -= weights[id++];
  return id;
}

Logits Row(const Tensor& tensor, int64_t row) {
  const float* begin = tensor.Row<float>(row);
  return Logits(begin, begin + tensor.cols);
}

}  // namespace

void RefSample(const SampleArgs& args) {
  for (int64_t r = 0; r < args.logits.rows; ++r) {
    const SampleRow& row = args.rows[r];
    Logits logits = Row(args.logits, r);
    SampledToken& token = args.tokens[r] = {};
    TokenLogprob* top = args.top + r * args.top_stride;

    token.finite = IsFinite(logits);
    Logits adjusted;
    if (token.finite) {
      adjusted = Adjusted(logits, row, args.drawn);
      token.finite = IsFinite(adjusted);
    }
    if (!token.finite) {
      if (row.wants_logprob) std::fill_n(top, row.num_top, TokenLogprob{0, 0});
      continue;
    }
    token.id = Draw(adjusted, row);
    if (row.wants_logprob) {
      const Logprobs logprobs(logits);
      token.logprob = logprobs.Of(token.id);
      logprobs.Top(row.num_top, top);
    }
  }
}

void RefScore(const ScoreArgs& args) {
  for (int64_t r = 0; r < args.logits.rows; ++r) {
    const Logits logits = Row(args.logits, r);
    TokenLogprob* top = args.top + r * args.num_top;
    if (!IsFinite(logits)) {
      args.logprobs[r] = 0;
      std::fill_n(top, args.num_top, TokenLogprob{0, 0});
      continue;
    }
    const Logprobs logprobs(logits);
    args.logprobs[r] = logprobs.Of(args.targets[r]);
    logprobs.Top(args.num_top, top);
  }
}

}  // namespace quire
