// The parts of a tokenizer.json that stand for a model and its vocabulary. Inside of tokenizer_json.cc.

#ifndef QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_MODEL_H_
#define QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_MODEL_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tokenizer/bpe.h"
#include "server/tokenizer/json_value.h"
#include "server/tokenizer/unigram.h"

namespace quire {

struct Vocabulary {
  std::variant<BpeModel, UnigramModel> model;
  absl::flat_hash_map<std::string, uint32_t> ids;  // by name
  std::vector<std::string> names;                  // [id] "" for ids that no token has
};

// An id below `limit`.
absl::StatusOr<uint32_t> ReadTokenId(const Json& value, absl::string_view path, uint32_t limit);

// `byte_level`: names are spelled in GPT-2's byte alphabet, and symbols are bytes.
absl::StatusOr<Vocabulary> ReadModel(const Json& model, bool byte_level);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_MODEL_H_
