// SentencePieceModel: a vocabulary of sentencepiece, from its own file (tokenizer.model) or from a GGUF file's
// metadata, and how it becomes a TokenizerSpec.
//
// The library itself is not used to read the file: it trusts the double array of the character map, whose offsets lead
// out of the file if somebody writes them so. Ids and text are the library's.
//
// Thread: functions of their arguments; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_SENTENCEPIECE_MODEL_H_
#define QUIRE_SERVER_TOKENIZER_SENTENCEPIECE_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tokenizer/sentencepiece_normalizer.h"
#include "server/tokenizer/tokenizer_spec.h"

namespace quire {

struct SentencePieceModel {
  enum class Algorithm { kUnigram, kBpe };
  // Numbered as in sentencepiece_model.proto; GGUF's tokenizer.ggml.token_type has the same numbers.
  enum class Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  struct Piece {
    std::string text;
    float score = 0;
    Type type = Type::kNormal;
  };

  Algorithm algorithm = Algorithm::kUnigram;
  std::vector<Piece> pieces;  // [id]
  SentencePieceNormalizerSpec normalizer;
  std::string unk_surface = " \u2047 ";  // how an unknown token is shown
  std::string bos_piece = "<s>";
  std::string eos_piece = "</s>";
};

// The content of a tokenizer.model (sentencepiece_model.proto, ModelProto). Errors do not name the file.
absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(absl::string_view bytes);

// Without anything put before and behind a text. Errors say which piece is wrong.
absl::StatusOr<TokenizerSpec> MakeTokenizerSpec(SentencePieceModel model);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_SENTENCEPIECE_MODEL_H_
