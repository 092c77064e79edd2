#include "server/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "server/tokenizer/tokenizer_spec.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

constexpr absl::string_view kReplacement = "\uFFFD";

std::vector<AddedToken> WithNormalized(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> chosen;
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(chosen),
               [&](const AddedToken& token) { return token.normalized == normalized; });
  return chosen;
}

struct MakeModel {
  std::variant<Bpe, Unigram> operator()(BpeModel& model) const { return Bpe(std::move(model)); }
  std::variant<Bpe, Unigram> operator()(UnigramModel& model) const { return Unigram(std::move(model)); }
};

// Appends the bytes of a run of byte tokens as text.
void AppendByteRun(absl::string_view bytes, InvalidUtf8 rule, std::string& text) {
  std::string characters;
  bool valid = true;
  for (size_t at = 0; at < bytes.size();) {
    const Utf8Sequence next = NextUtf8(bytes.substr(at));
    const bool is_character = next.kind == Utf8Sequence::kCharacter;
    const absl::string_view shown = is_character ? bytes.substr(at, next.num_bytes) : kReplacement;
    characters.append(shown.data(), shown.size());
    valid &= is_character;
    at += is_character ? next.num_bytes : 1;
  }
  if (valid || rule == InvalidUtf8::kSingleBytes) {
    text += characters;
    return;
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    text.append(kReplacement.data(), kReplacement.size());
  }
}

}  // namespace

struct Tokenizer::Parts {
  explicit Parts(TokenizerSpec spec)
      : tokens(std::move(spec.tokens)),
        is_byte(std::move(spec.is_byte)),
        keeps_spaces(std::move(spec.keeps_spaces)),
        special(tokens.size()),
        model(std::visit(MakeModel(), spec.model)),
        normalizer(std::move(spec.normalizer)),
        pre_tokenizer(std::move(spec.pre_tokenizer)),
        added({AddedTokens(WithNormalized(spec.added_tokens, false)),
               AddedTokens(WithNormalized(spec.added_tokens, true))}),
        prefix_ids(std::move(spec.prefix_ids)),
        suffix_ids(std::move(spec.suffix_ids)),
        leading_spaces(spec.leading_spaces),
        first_tokens(std::move(spec.first_tokens)),
        invalid_utf8(spec.invalid_utf8) {
    is_byte.resize(tokens.size());
    keeps_spaces.resize(tokens.size());
    for (const AddedToken& token : spec.added_tokens) {
      special[token.id] = special[token.id] || token.special;
    }
    for (const std::string& token : tokens) {
      max_token_bytes = std::max(max_token_bytes, token.size());
    }
  }

  // Looks for the added tokens of the raw text, normalises what is between them, looks for those of normalised text,
  // then cuts the rest into pieces and those into tokens.
  void EncodeRaw(absl::string_view text, bool trusted, std::vector<uint32_t>& ids) const {
    ForEachText(added[0], text, trusted, ids, [&](absl::string_view raw, bool begins_raw) {
      std::string storage;
      bool dropped = false;
      const absl::string_view normalized = normalizer.Apply(raw, storage, &dropped);
      ForEachText(added[1], normalized, trusted, ids, [&](absl::string_view part, bool begins_part) {
        pre_tokenizer.Split(part, begins_raw && begins_part && !dropped, [&](absl::string_view piece) {
          std::visit([&](const auto& model) { model.Encode(piece, ids); }, model);
        });
      });
    });
  }

  // Appends the ids of the tokens that `finder` finds in `text`, and calls encode(part, whether it begins the text) for
  // what is between them.
  template <typename Encode>
  static void ForEachText(const AddedTokens& finder, absl::string_view text, bool trusted, std::vector<uint32_t>& ids,
                          const Encode& encode) {
    if (!finder.FindsSomething(trusted)) {
      if (!text.empty()) {
        encode(text, true);
      }
      return;
    }
    for (const AddedTokens::Part& part : finder.Split(text, trusted)) {
      if (part.id) {
        ids.push_back(*part.id);
      } else {
        encode(part.text, part.text.data() == text.data());
      }
    }
  }

  std::vector<std::string> tokens;  // [id]
  std::vector<bool> is_byte;        // [id]
  std::vector<bool> keeps_spaces;   // [id]
  std::vector<bool> special;        // [id]
  std::variant<Bpe, Unigram> model;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::array<AddedTokens, 2> added;  // looked for in the raw text, and in the normalised text
  std::vector<uint32_t> prefix_ids;
  std::vector<uint32_t> suffix_ids;
  LeadingSpaces leading_spaces;
  absl::flat_hash_map<uint32_t, std::string> first_tokens;
  InvalidUtf8 invalid_utf8;
  size_t max_token_bytes = 0;
};

Tokenizer::Tokenizer(TokenizerSpec spec) : parts_(std::make_unique<const Parts>(std::move(spec))) {}

Tokenizer::~Tokenizer() = default;

std::vector<uint32_t> Tokenizer::Encode(absl::string_view text, bool add_special_tokens) const {
  return Encode(text, add_special_tokens, /*trusted=*/false);
}

std::vector<uint32_t> Tokenizer::EncodeTrusted(absl::string_view text, bool add_special_tokens) const {
  return Encode(text, add_special_tokens, /*trusted=*/true);
}

std::vector<uint32_t> Tokenizer::Encode(absl::string_view text, bool add_special_tokens, bool trusted) const {
  std::vector<uint32_t> ids;
  ids.reserve(text.size() / 4 + parts_->prefix_ids.size() + parts_->suffix_ids.size());
  if (add_special_tokens) {
    ids = parts_->prefix_ids;
  }
  if (!text.empty()) {
    parts_->EncodeRaw(text, trusted, ids);
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

Tokenizer::DecodePosition Tokenizer::Beginning() const {
  return {parts_->leading_spaces.max, parts_->leading_spaces.max == 0};
}

absl::string_view Tokenizer::NextBytes(uint32_t id, DecodePosition& position) const {
  const absl::string_view bytes = TokenBytes(id);
  if (position.over || id >= vocab_size()) {
    return bytes;
  }
  const LeadingSpaces& rule = parts_->leading_spaces;
  if (const auto first = parts_->first_tokens.find(id); first != parts_->first_tokens.end()) {
    position.over = true;
    return first->second;
  }
  const bool counts = !parts_->keeps_spaces[id];
  const size_t spaces = std::min(bytes.find_first_not_of(' '), bytes.size());
  const size_t dropped = counts ? std::min(spaces, position.num_spaces) : 0;
  if (rule.of != LeadingSpaces::Of::kEachToken) {
    position.num_spaces -= dropped;
  }
  position.over = dropped < bytes.size() || position.num_spaces == 0 || rule.of == LeadingSpaces::Of::kFirstToken;
  return bytes.substr(dropped);
}

std::string Tokenizer::DecodeBytes(absl::Span<const uint32_t> ids, bool skip_special_tokens) const {
  std::string bytes;
  DecodePosition position = Beginning();
  for (const uint32_t id : ids) {
    if (!(skip_special_tokens && IsSpecial(id))) {
      const absl::string_view token = NextBytes(id, position);
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

std::string Tokenizer::DecodeLikeLibrary(absl::Span<const uint32_t> ids, bool skip_special_tokens) const {
  if (parts_->invalid_utf8 == InvalidUtf8::kMaximalSubparts) {
    return Decode(ids, skip_special_tokens);
  }
  std::string text, run;  // of byte tokens
  // `tokenizers` strips blanks of the whole text at the end, when a run that is not valid shows none any more.
  const bool strips_text =
      parts_->invalid_utf8 == InvalidUtf8::kByteTokenRuns && parts_->leading_spaces.of == LeadingSpaces::Of::kText;
  DecodePosition position = strips_text ? DecodePosition{0, true} : Beginning();
  for (const uint32_t id : ids) {
    if ((skip_special_tokens && IsSpecial(id)) || id >= vocab_size()) {
      continue;
    }
    const absl::string_view token = NextBytes(id, position);
    if (parts_->is_byte[id]) {
      run.append(token.data(), token.size());
      continue;
    }
    AppendByteRun(run, parts_->invalid_utf8, text);
    run.clear();
    text.append(token.data(), token.size());
  }
  AppendByteRun(run, parts_->invalid_utf8, text);
  const size_t spaces = std::min(text.find_first_not_of(' '), text.size());
  return strips_text ? text.substr(std::min(spaces, parts_->leading_spaces.max)) : text;
}

}  // namespace quire
