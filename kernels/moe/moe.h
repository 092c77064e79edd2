// Mixture of experts: Route chooses experts for each row, Moe computes them (Shazeer et al. 2017; Mixtral, section 2;
// DeepSeek-V2, section 2.2; DeepSeek-V3, section 2.1.2).
//
// Route, for a row of logits a[e], e < num_experts:
//
//   score[e]  = softmax(a)[e]  or  1 / (1 + e^-a[e])
//   choice[e] = score[e] + bias[e]
//   With num_groups > 1 the experts fall into so many groups of neighbours; a group's worth is its largest choice, or
//   the sum of its two largest; only experts of the top_groups best groups may be chosen.
//   experts   = the top_k largest choices, falling; of equal ones the lower id first
//   weights   = score[experts], divided by their sum + 1e-20 if `normalize`, times scale
//
// `softmax` and `normalize` together are the softmax over the chosen logits (Mixtral, gpt-oss). Ids are always distinct
// and in range, whatever the logits (NaN included). Example: a = [ln 1, ln 3, ln 4], softmax, top_k 2, normalize:
// experts [2, 1], weights [4/7, 3/7].
//
// Moe, for a row and its experts E in rising order of id (an order that is the row's own: company changes no bit):
//
//   y += sum over e in E of weight[e] * (down[e] gate(gate_up[e] x + gate_up_bias[e]) + down_bias[e])
//
// The gated vector is rounded to the weights' dtype before `down`; products as in Linear, so that a row has the same
// bits in any company. Weights of experts that no row chose are not read. Example: one expert with gate_up = [[0],
// [5]], silu, down = [[1]]: y is unchanged, as silu(0) = 0.

#ifndef QUIRE_KERNELS_MOE_MOE_H_
#define QUIRE_KERNELS_MOE_MOE_H_

#include <cstdint>

#include "kernels/gated_activation/gated_activation.h"
#include "kernels/linear/linear.h"
#include "kernels/tensor.h"

namespace quire {

inline constexpr int32_t kMaxExperts = 1024;

enum class RouteScore : uint8_t { kSoftmax, kSigmoid };
enum class RouteGroupScore : uint8_t { kMax, kTopTwoSum };

struct RouteArgs {
  Tensor logits = {};          // float32 [num_rows, num_experts], at most kMaxExperts
  int32_t top_k = 1;           // 1 .. num_experts of the allowed groups
  int32_t* experts = nullptr;  // out: [num_rows, top_k]
  float* weights = nullptr;    // out: [num_rows, top_k]
  RouteScore score = RouteScore::kSoftmax;
  bool normalize = false;
  float scale = 1;
  const float* bias = nullptr;  // [num_experts], or nullptr: zeroes. Picks experts but does not weigh them
  int32_t num_groups = 1;       // divides num_experts
  int32_t top_groups = 1;       // 1 .. num_groups
  RouteGroupScore group_score = RouteGroupScore::kMax;
};

struct MoeArgs {
  Tensor x;                // gate_up[0].dtype [num_rows, hidden]
  const int32_t* experts;  // [num_rows, top_k], those of a row distinct
  const float* weights;    // [num_rows, top_k]
  int32_t top_k;           // >= 1
  int32_t num_experts;
  const LinearWeight* gate_up;  // [num_experts], each [2 * intermediate, hidden], gate rows first
  const LinearWeight* down;     // [num_experts], each [hidden, intermediate]
  Gate gate;
  Tensor y;                             // in and out: float32 [num_rows, hidden]
  const float* gate_up_bias = nullptr;  // [num_experts, 2 * intermediate], or nullptr
  const float* down_bias = nullptr;     // [num_experts, hidden], or nullptr
};

}  // namespace quire

#endif  // QUIRE_KERNELS_MOE_MOE_H_
