#include "server/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/json_text.h"
#include "server/tokenizer/added_tokens.h"
#include "server/tokenizer/bpe.h"
#include "server/tokenizer/splitter.h"
#include "server/tokenizer/tokenizer_json.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

// The largest tokenizer.json in use has 35 MB.
constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;

std::vector<AddedToken> WithNormalized(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> chosen;
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(chosen),
               [&](const AddedToken& token) { return token.normalized == normalized; });
  return chosen;
}

}  // namespace

struct Tokenizer::Parts {
  explicit Parts(TokenizerSpec spec)
      : tokens(std::move(spec.tokens)),
        special(tokens.size()),
        splitters(std::move(spec.splitters)),
        prefix_ids(std::move(spec.prefix_ids)),
        suffix_ids(std::move(spec.suffix_ids)),
        added({AddedTokens(WithNormalized(spec.added_tokens, false)),
               AddedTokens(WithNormalized(spec.added_tokens, true))}),
        bpe(spec.bpe, tokens) {
    for (const AddedToken& token : spec.added_tokens) {
      special[token.id] = special[token.id] || token.special;
    }
    for (const std::string& token : tokens) {
      max_token_bytes = std::max(max_token_bytes, token.size());
    }
  }

  // Looks for the added tokens of added[from] and on, then for words.
  void EncodeText(absl::string_view text, size_t from, std::vector<uint32_t>& ids) const {
    if (from == added.size()) {
      EncodeWords(text, 0, ids);
    } else if (!added[from].finds_something()) {
      EncodeText(text, from + 1, ids);
    } else {
      for (const AddedTokens::Part& part : added[from].Split(text)) {
        if (part.id) {
          ids.push_back(*part.id);
        } else {
          EncodeText(part.text, from + 1, ids);
        }
      }
    }
  }

  // Cuts `text` with splitters[from] and each word with those after it.
  void EncodeWords(absl::string_view text, size_t from, std::vector<uint32_t>& ids) const {
    if (from == splitters.size()) {
      bpe.Encode(text, ids);
      return;
    }
    for (size_t begin = 0, end; begin < text.size(); begin = end) {
      end = EndOfWord(splitters[from], text, begin);
      EncodeWords(text.substr(begin, end - begin), from + 1, ids);
    }
  }

  std::vector<std::string> tokens;  // [id]
  std::vector<bool> special;        // [id]
  std::vector<Splitter> splitters;
  std::vector<uint32_t> prefix_ids;
  std::vector<uint32_t> suffix_ids;
  // Those that the library looks for in the raw text, then those in the normalised text. No normaliser is read yet, so
  // the texts are the same; the order is not.
  std::array<AddedTokens, 2> added;
  Bpe bpe;  // holds views of `tokens`
  size_t max_token_bytes = 0;
};

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}

Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& model_dir) {
  const std::string path = absl::StrCat(model_dir, "/tokenizer.json");
  const absl::StatusOr<std::string> json = ReadTextFile(path, kMaxFileBytes);
  if (!json.ok()) {
    return json.status();
  }
  return Parse(*json, path);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(absl::string_view json, absl::string_view name) {
  absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(json, name);
  if (!spec.ok()) {
    return spec.status();
  }
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::make_unique<const Parts>(*std::move(spec))));
}

std::vector<uint32_t> Tokenizer::Encode(absl::string_view text, bool add_special_tokens) const {
  std::vector<uint32_t> ids;
  ids.reserve(text.size() / 4 + parts_->prefix_ids.size() + parts_->suffix_ids.size());
  if (add_special_tokens) {
    ids = parts_->prefix_ids;
  }
  if (!text.empty()) {
    parts_->EncodeText(text, 0, ids);
  }
  if (add_special_tokens) {
    ids.insert(ids.end(), parts_->suffix_ids.begin(), parts_->suffix_ids.end());
  }
  return ids;
}

absl::string_view Tokenizer::TokenBytes(uint32_t id) const {
  return id < parts_->tokens.size() ? parts_->tokens[id] : absl::string_view();
}

bool Tokenizer::IsSpecial(uint32_t id) const { return id < parts_->special.size() && parts_->special[id]; }

uint32_t Tokenizer::vocab_size() const { return static_cast<uint32_t>(parts_->tokens.size()); }

size_t Tokenizer::max_token_bytes() const { return parts_->max_token_bytes; }

std::string Tokenizer::DecodeBytes(absl::Span<const uint32_t> ids, bool skip_special_tokens) const {
  std::string bytes;
  for (const uint32_t id : ids) {
    if (!(skip_special_tokens && IsSpecial(id))) {
      const absl::string_view token = TokenBytes(id);
      bytes.append(token.data(), token.size());
    }
  }
  return bytes;
}

std::string Tokenizer::Decode(absl::Span<const uint32_t> ids, bool skip_special_tokens) const {
  std::string text;
  AppendUtf8(DecodeBytes(ids, skip_special_tokens), /*at_end=*/true, text);
  return text;
}

}  // namespace quire
