// PreTokenizer: cuts a text into the pieces within which the model finds its tokens.
//
// It is a list of steps, each of which works on the pieces that the one before it left: it may put something before a
// piece, then it cuts it by the matches of an expression. All of tokenizer.json's pre_tokenizers are such steps
// (`tokenizers`, src/pre_tokenizers and tokenizer/normalizer.rs, split).
//
// Thread: immutable once made; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_PRE_TOKENIZER_H_
#define QUIRE_SERVER_TOKENIZER_PRE_TOKENIZER_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "server/tokenizer/regex.h"

namespace quire {

struct PreTokenizerStep {
  // What becomes of matches, and of what is between them.
  enum class Behavior {
    kIsolated,            // each is a piece
    kRemoved,             // matches vanish
    kMergedWithPrevious,  // a match belongs to what is before it; of adjacent matches the first does, the others stand
                          // alone
    kMergedWithNext,      // likewise behind
    kContiguous,          // adjacent matches are one piece
  };
  enum class Prefix { kNone, kFirstPiece, kEveryPiece };

  std::string space = {};  // not empty: takes the place of each " "
  Prefix prefix = Prefix::kNone;
  std::string prefix_text =
      {};  // put before pieces that do not begin with it; kFirstPiece: before the one that begins the text
  std::optional<Regex> splitter = {};
  Behavior behavior = Behavior::kIsolated;
  bool invert = false;                                // what is between matches counts as matches, and they as between
  Regex::Alphabet alphabet = Regex::Alphabet::kUtf8;  // what pieces are made of when this step sees them
};

class PreTokenizer {
 public:
  PreTokenizer() = default;
  explicit PreTokenizer(std::vector<PreTokenizerStep> steps) : steps_(std::move(steps)) {}

  using Sink = absl::FunctionRef<void(absl::string_view piece)>;

  // Hands the pieces of `text` to `sink` in order; none is empty, and each lives for the call. `begins_text`: nothing
  // is before `text`. Linear in `text` for each step.
  void Split(absl::string_view text, bool begins_text, Sink sink) const { Run(0, text, begins_text, sink); }

 private:
  void Run(size_t step, absl::string_view text, bool begins_text, Sink sink) const;
  void Cut(size_t step, absl::string_view text, bool begins_text, Sink sink) const;
  void CutMerging(size_t step, absl::string_view text, bool begins_text, Sink sink) const;

  std::vector<PreTokenizerStep> steps_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_PRE_TOKENIZER_H_
