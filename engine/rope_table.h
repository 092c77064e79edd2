// RopeTable: cosines and sines of every angle that rotary position embeddings meet, computed once at load.
//
//   inv_freq[i] = 1 / theta^(2i / head_dim),   angle[p, i] = p * inv_freq[i],   i < head_dim / 2
//
// All of it in float32, as transformers does: one unit in the last place of a frequency moves log-probabilities by 1e-4
// at 600 tokens.

#ifndef QUIRE_ENGINE_ROPE_TABLE_H_
#define QUIRE_ENGINE_ROPE_TABLE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace quire {

class RopeTable {
 public:
  static absl::StatusOr<RopeTable> Create(double theta, int32_t head_dim, int32_t num_positions, Backend& backend);
  static uint64_t Bytes(int32_t head_dim, int32_t num_positions) {
    return uint64_t{sizeof(float)} * head_dim * num_positions;
  }

  const float* cos() const { return static_cast<const float*>(values_.data()); }  // [num_positions, head_dim / 2]
  const float* sin() const { return cos() + num_values_; }                        // the same

 private:
  Buffer values_;
  int64_t num_values_ = 0;  // of each
};

// [head_dim / 2]
std::vector<float> RopeInverseFrequencies(double theta, int32_t head_dim);

}  // namespace quire

#endif  // QUIRE_ENGINE_ROPE_TABLE_H_
