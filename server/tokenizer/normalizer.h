// Normalizer: what a tokenizer does to a text before it looks for tokens, as a list of steps.
//
// The steps are tokenizer.json's normalizers (`tokenizers`, src/normalizers), and sentencepiece's (normalizer.cc),
// which is one step.
//
// Thread: immutable once made; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_NORMALIZER_H_
#define QUIRE_SERVER_TOKENIZER_NORMALIZER_H_

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/tokenizer/normalization.h"
#include "server/tokenizer/regex.h"
#include "server/tokenizer/sentencepiece_normalizer.h"

namespace quire {

struct ToForm {
  NormalizationForm form;
};
struct ToLowerCase {};
struct StripSpaces {
  bool left;
  bool right;
};
struct StripAccents {};
struct Replace {
  Regex pattern;
  std::string content;
};
// Nothing becomes of an empty text.
struct Prepend {
  std::string text;
};

using NormalizerStep = std::variant<ToForm, ToLowerCase, StripSpaces, StripAccents, Replace, Prepend,
                                    std::shared_ptr<const SentencePieceNormalizer>>;

class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}

  // `text` itself where there is nothing to do, else a view of `storage`. n log n. Sets `dropped`, if it is not null,
  // to whether the text's first character left nothing behind: what begins the result does not begin the text.
  absl::string_view Apply(absl::string_view text, std::string& storage, bool* dropped = nullptr) const;

  bool empty() const { return steps_.empty(); }

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_NORMALIZER_H_
