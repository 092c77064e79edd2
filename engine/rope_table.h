// RopeTable: cosines and sines of every angle that rotary position embeddings meet, computed once at load.
//
//   inv_freq[i] = 1 / theta^(2i / dim), scaled as the config says;   angle[p, i] = p * inv_freq[i]
//
// All of it in float32 and in the order of transformers' operations: one unit in the last place of a frequency moves
// log-probabilities by 1e-4 at 600 tokens. Scalings that depend on the sequence's length (dynamic NTK, longrope) take
// max_model_len for it: what is in a cache must not depend on how far its sequence will grow.

#ifndef QUIRE_ENGINE_ROPE_TABLE_H_
#define QUIRE_ENGINE_ROPE_TABLE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/config/rope_config.h"
#include "kernels/backend.h"

namespace quire {

class RopeTable {
 public:
  // Positions 0 .. max_model_len - 1.
  static absl::StatusOr<RopeTable> Create(const RopeConfig& config, int32_t max_model_len, Backend& backend);
  static uint64_t Bytes(const RopeConfig& config, int32_t max_model_len) {
    return uint64_t{2 * sizeof(float)} * config.NumFrequencies() * max_model_len;
  }

  const float* cos() const { return static_cast<const float*>(values_.data()); }  // [max_model_len, rotary_dim / 2]
  const float* sin() const { return cos() + num_values_; }                        // the same
  int32_t rotary_dim() const { return rotary_dim_; }
  RopePairing pairing() const { return pairing_; }

 private:
  Buffer values_;
  int64_t num_values_ = 0;  // of each
  int32_t rotary_dim_ = 0;
  RopePairing pairing_ = RopePairing::kHalves;
};

// [config.NumFrequencies()]
std::vector<float> RopeInverseFrequencies(const RopeConfig& config, int32_t max_model_len);

}  // namespace quire

#endif  // QUIRE_ENGINE_ROPE_TABLE_H_
