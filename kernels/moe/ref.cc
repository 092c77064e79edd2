#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/gated_activation/impl.h"
#include "kernels/linear/impl.h"
#include "kernels/moe/impl.h"

namespace quire {
namespace {

// result = down[e] gate(gate_up[e] x + gate_up_bias[e]) + down_bias[e], x one row.
void Expert(const MoeArgs& args, int32_t e, const Tensor& x, std::vector<float>& result) {
  const LinearWeight &gate_up = args.gate_up[e], &down = args.down[e];
  std::vector<float> both(static_cast<size_t>(gate_up.n));
  const Tensor both_row = Tensor::Contiguous(both.data(), DType::kFloat32, 1, gate_up.n);
  RefLinear({.x = x,
             .weight = &gate_up,
             .bias = args.gate_up_bias != nullptr ? args.gate_up_bias + e * gate_up.n : nullptr,
             .accumulate = false,
             .y = both_row});
  std::vector<char> gated(static_cast<size_t>(down.k) * DTypeBytes(x.dtype));
  const Tensor gated_row = Tensor::Contiguous(gated.data(), x.dtype, 1, down.k);
  RefGatedActivation({both_row, gated_row, args.gate});
  RefLinear({.x = gated_row,
             .weight = &down,
             .bias = args.down_bias != nullptr ? args.down_bias + e * down.n : nullptr,
             .accumulate = false,
             .y = Tensor::Contiguous(result.data(), DType::kFloat32, 1, down.n)});
}

}  // namespace

void RefMoe(const MoeArgs& args) {
  std::vector<float> result(static_cast<size_t>(args.y.cols));
  for (int64_t row = 0; row < args.x.rows; ++row) {
    std::vector<int32_t> ranks(static_cast<size_t>(args.top_k));
    for (int32_t i = 0; i < args.top_k; ++i) ranks[i] = i;
    const int32_t* experts = args.experts + row * args.top_k;
    std::sort(ranks.begin(), ranks.end(), [&](int32_t a, int32_t b) { return experts[a] < experts[b]; });
    for (int32_t rank : ranks) {
      Expert(args, experts[rank], args.x.Rows(row, 1), result);
      const float weight = args.weights[row * args.top_k + rank];
      for (int64_t i = 0; i < args.y.cols; ++i) args.y.Row<float>(row)[i] += weight * result[i];
    }
  }
}

}  // namespace quire
