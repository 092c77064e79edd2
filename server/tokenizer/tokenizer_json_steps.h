// The parts of a tokenizer.json that say what is done to a text: normalizer, pre_tokenizer and decoder. Inside of
// tokenizer_json.cc.

#ifndef QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_STEPS_H_
#define QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_STEPS_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tokenizer/json_value.h"
#include "server/tokenizer/tokenizer_spec.h"

namespace quire {

// The expression of ByteLevel with use_regex (Radford et al. 2019).
inline constexpr absl::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

absl::StatusOr<Normalizer> ReadNormalizer(const Json& value);

struct PreTokenizerSteps {
  std::vector<PreTokenizerStep> steps;
  bool byte_level = false;  // pieces are bytes, which the vocabulary spells in GPT-2's alphabet
};
absl::StatusOr<PreTokenizerSteps> ReadPreTokenizer(const Json& value);

// What a name of the vocabulary becomes in decoded text.
struct Decoder {
  bool byte_level = false;                                         // names are spelled in GPT-2's alphabet
  std::vector<std::pair<std::string, std::string>> replaced = {};  // texts of a name, in order
  bool byte_fallback = false;                                      // <0x41> is the byte 0x41
  LeadingSpaces leading_spaces = {};
  std::string hidden_at_beginning = {};  // Metaspace's character, which vanishes from a token that begins a text

  std::string Bytes(absl::string_view name) const;
  // The same where it begins a text.
  std::string BytesAtBeginning(absl::string_view name) const;
  // The byte that `name` stands for by byte_fallback.
  std::optional<uint8_t> Byte(absl::string_view name) const;
};
absl::StatusOr<Decoder> ReadDecoder(const Json& value);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_TOKENIZER_JSON_STEPS_H_
