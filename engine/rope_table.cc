#include "engine/rope_table.h"

#include <cmath>
#include <utility>

namespace quire {

std::vector<float> RopeInverseFrequencies(double theta, int32_t head_dim) {
  std::vector<float> frequencies(head_dim / 2);
  for (int32_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    frequencies[i] = 1.0f / std::pow(static_cast<float>(theta), exponent);
  }
  return frequencies;
}

absl::StatusOr<RopeTable> RopeTable::Create(double theta, int32_t head_dim, int32_t num_positions, Backend& backend) {
  absl::StatusOr<Buffer> values = backend.Allocate(Bytes(head_dim, num_positions));
  if (!values.ok()) return values.status();
  RopeTable table;
  table.values_ = *std::move(values);
  table.num_values_ = int64_t{num_positions} * (head_dim / 2);
  auto* cos = static_cast<float*>(table.values_.data());
  float* sin = cos + table.num_values_;
  const std::vector<float> frequencies = RopeInverseFrequencies(theta, head_dim);
  for (int32_t position = 0; position < num_positions; ++position) {
    for (const float frequency : frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      *cos++ = std::cos(angle);
      *sin++ = std::sin(angle);
    }
  }
  return table;
}

}  // namespace quire
