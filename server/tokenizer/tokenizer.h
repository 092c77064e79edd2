// Tokenizer: text to token ids and back, as the files of a model say.
//
// It equals the library of the file's format id for id and byte for byte: `tokenizers` for tokenizer.json
// (tokenizer_json.h lists what is read of it), sentencepiece for tokenizer.model and for the vocabularies of GGUF files
// that come from one. What it does not know is refused at load by name, never ignored.
//
// A token stands for the same bytes whatever stands beside it, but for blanks at the very beginning of a text that
// encoding has put there. So the text of an output is the bytes of its tokens one after the other, and depends on the
// prompt only in whether there is one: TextStream builds on that.
//
// Thread: immutable once made; any number of threads may use it at once. It knows nothing of requests, streams or
// stops.

#ifndef QUIRE_SERVER_TOKENIZER_TOKENIZER_H_
#define QUIRE_SERVER_TOKENIZER_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

struct TokenizerSpec;

class Tokenizer {
 public:
  // Reads tokenizer.json of a model directory, tokenizer.model where there is none, or the metadata of a .gguf file.
  // The error is one line that names the file, what was found and what is allowed.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& model);

  // The same from the text of a tokenizer.json; `name` stands for the file in errors.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(absl::string_view json, absl::string_view name);

  explicit Tokenizer(TokenizerSpec spec);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // The ids of `text`; with `add_special_tokens` also what the post-processor puts around it (BOS and the like). The
  // text of a special token stays text (`encode_special_tokens` of tokenizers: a client cannot smuggle one in); an
  // added token that is not special matches. Bytes that are no UTF-8 are encoded one by one. Every id is below
  // vocab_size(). O(n log n) in the bytes of `text`. REQUIRES: text.size() < 2^30.
  std::vector<uint32_t> Encode(absl::string_view text, bool add_special_tokens) const;

  // The same for text that the operator vouches for, as a chat template is: the text of a special token is the token.
  std::vector<uint32_t> EncodeTrusted(absl::string_view text, bool add_special_tokens) const;

  // What a token adds to the decoded bytes, special or not; "" for ids that stand for nothing. It may be part of a
  // UTF-8 character. Valid as long as the tokenizer.
  absl::string_view TokenBytes(uint32_t id) const;

  // Whether the tokenizer calls it a special token: skip_special_tokens leaves it out of the text.
  bool IsSpecial(uint32_t id) const;

  // How far a decoded text has come with the blanks at its beginning that are not shown.
  struct DecodePosition {
    size_t num_spaces;  // that may yet be left out
    bool over;          // none will be
  };
  DecodePosition Beginning() const;
  // TokenBytes(id) less such blanks, for the next token of a text.
  absl::string_view NextBytes(uint32_t id, DecodePosition& position) const;

  // One more than the largest id in the file. A model's own vocabulary may be larger: such ids stand for nothing.
  uint32_t vocab_size() const;

  // The longest TokenBytes(). A text longer than max_model_len times this cannot fit (aside from what a normaliser
  // shortens, from blanks that added tokens with lstrip or rstrip swallow, and from unknown characters run together).
  size_t max_token_bytes() const;

  // The bytes of `ids` one after the other; not always valid UTF-8.
  std::string DecodeBytes(absl::Span<const uint32_t> ids, bool skip_special_tokens) const;

  // DecodeBytes() as valid UTF-8: each maximal subpart of an ill-formed sequence becomes one U+FFFD (Unicode 15 section
  // 3.9, as WHATWG and Python's errors="replace" do). Streams show the same.
  std::string Decode(absl::Span<const uint32_t> ids, bool skip_special_tokens) const;

  // Decode() as the library of the file's format has it: with byte fallback some put more of U+FFFD.
  std::string DecodeLikeLibrary(absl::Span<const uint32_t> ids, bool skip_special_tokens) const;

 private:
  struct Parts;

  std::vector<uint32_t> Encode(absl::string_view text, bool add_special_tokens, bool trusted) const;

  std::unique_ptr<const Parts> parts_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_TOKENIZER_H_
