// Route as moe.h defines it, for `ref` and `cpu`. Rows have 8 to 512 experts: beside the matrix products around it, it
// does not show.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/moe/impl.h"

namespace quire {
namespace {

void Scores(const RouteArgs& args, const float* logits, float* scores) {
  const int64_t num_experts = args.logits.cols;
  if (args.score == RouteScore::kSigmoid) {
    for (int64_t e = 0; e < num_experts; ++e) scores[e] = 1.0f / (1.0f + std::exp(-logits[e]));
    return;
  }
  const float max = *std::max_element(logits, logits + num_experts);
  float sum = 0;
  for (int64_t e = 0; e < num_experts; ++e) sum += scores[e] = std::exp(logits[e] - max);
  for (int64_t e = 0; e < num_experts; ++e) scores[e] /= sum;
}

// What a group of `count` experts is worth.
float GroupScore(RouteGroupScore kind, const float* choices, int64_t count) {
  if (kind == RouteGroupScore::kMax || count == 1) return *std::max_element(choices, choices + count);
  float best = std::max(choices[0], choices[1]), second = std::min(choices[0], choices[1]);
  for (int64_t e = 2; e < count; ++e) {
    second = std::max(second, std::min(best, choices[e]));
    best = std::max(best, choices[e]);
  }
  return best + second;
}

// Fills chosen[0 .. count) with the indices of the largest value(i), falling, of equal ones the lower first, among
// those i < n for which allowed(i). Distinct and in range whatever the values, if `count` are allowed.
template <class Value, class Allowed>
void Largest(int64_t n, int32_t count, const Value& value, const Allowed& allowed, int32_t* chosen) {
  for (int32_t c = 0; c < count; ++c) {
    int64_t best = -1;
    float best_value = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (!allowed(i) || std::find(chosen, chosen + c, i) != chosen + c) continue;
      const float here = value(i);
      if (best < 0 || here > best_value || (std::isnan(best_value) && !std::isnan(here))) {
        best = i;
        best_value = here;
      }
    }
    chosen[c] = static_cast<int32_t>(best);
  }
}

}  // namespace

void HostRoute(const RouteArgs& args, int64_t row_begin, int64_t row_end) {
  const int64_t num_experts = args.logits.cols;
  const int64_t group = num_experts / args.num_groups;
  for (int64_t row = row_begin; row < row_end; ++row) {
    float scores[kMaxExperts], choices[kMaxExperts];
    Scores(args, args.logits.Row<float>(row), scores);
    for (int64_t e = 0; e < num_experts; ++e) choices[e] = args.bias != nullptr ? scores[e] + args.bias[e] : scores[e];
    int32_t* const experts = args.experts + row * args.top_k;
    float* const weights = args.weights + row * args.top_k;
    int32_t groups[kMaxExperts];
    Largest(
        args.num_groups, args.top_groups,
        [&](int64_t g) { return GroupScore(args.group_score, choices + g * group, group); },
        [](int64_t) { return true; }, groups);
    const auto in_groups = [&](int64_t e) {
      return std::find(groups, groups + args.top_groups, e / group) != groups + args.top_groups;
    };
    Largest(
        num_experts, args.top_k, [&](int64_t e) { return choices[e]; }, in_groups, experts);
    float sum = 1e-20f;
    for (int32_t i = 0; i < args.top_k; ++i) sum += weights[i] = scores[experts[i]];
    for (int32_t i = 0; i < args.top_k; ++i) weights[i] = (args.normalize ? weights[i] / sum : weights[i]) * args.scale;
  }
}

}  // namespace quire
