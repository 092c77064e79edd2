// The messages of vllm.grpc.engine.VllmEngine as those of quire.v1, and back. The rules for absent values are those of
// vLLM's own servicer: a zero of top_p, repetition_penalty or n, which have no presence on the wire, means 1; an absent
// temperature 1; an absent max_tokens the end of the context. The model's own defaults do not count here.
//
// Thread: functions of their arguments; an encoder belongs to one stream.

#ifndef QUIRE_SERVER_VLLM_DIALECT_H_
#define QUIRE_SERVER_VLLM_DIALECT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "quire/v1/generation.pb.h"
#include "vllm/engine.pb.h"

namespace quire {

// INVALID_ARGUMENT or UNIMPLEMENTED names the field of the dialect for what has no counterpart here; ranges are left to
// the validation of quire.v1. `max_model_len`: what truncate_prompt_tokens = -1 leaves room in.
absl::StatusOr<v1::GenerateRequest> FromVllm(vllm::grpc::engine::GenerateRequest request, uint32_t max_model_len);

// What the dialect calls a field of quire.v1.GenerateRequest.
std::string VllmFieldName(absl::string_view field);

// Turns the responses of one call into the dialect's: with `stream` chunks of new ids for each Delta, and always a
// Complete with everything for each Finished. Counts of chunks are 0, totals stand in Complete: so SMG, which adds up
// the ids of chunks, and llm-d, which keeps the last count that is not 0, both get them right.
class VllmEncoder {
 public:
  // `first_prompt_id`: the prompt's first token, which stands without a value before its log-probabilities; 0 where it
  // is not known.
  VllmEncoder(bool stream, uint32_t first_prompt_id) : stream_(stream), first_prompt_id_(first_prompt_id) {}

  // What `response` becomes; perhaps nothing.
  void Encode(v1::GenerateResponse response, std::vector<vllm::grpc::engine::GenerateResponse>& out);

 private:
  void EncodeDelta(const v1::Delta& delta, std::vector<vllm::grpc::engine::GenerateResponse>& out);
  void EncodeFinished(const v1::Finished& finished, std::vector<vllm::grpc::engine::GenerateResponse>& out);

  const bool stream_;
  const uint32_t first_prompt_id_;
  bool told_prompt_ = false;  // the prompt's log-probabilities went out with a chunk
  vllm::grpc::engine::InputLogProbs prompt_logprobs_;
  std::map<uint32_t, vllm::grpc::engine::GenerateComplete> outputs_;  // under way, by index
};

}  // namespace quire

#endif  // QUIRE_SERVER_VLLM_DIALECT_H_
