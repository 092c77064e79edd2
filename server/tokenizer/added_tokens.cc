#include "server/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

bool HasWordBeside(absl::string_view text, size_t begin, size_t end) {
  return (begin > 0 && (CharacterAt(text, BeginOfLast(text, begin)).properties & kWord) != 0) ||
         (end < text.size() && (CharacterAt(text, end).properties & kWord) != 0);
}

// Where the whitespace begins that ends at `end`, but not before `from`.
size_t BeginOfSpaces(absl::string_view text, size_t from, size_t end) {
  while (end > from) {
    const size_t last = BeginOfLast(text, end);
    if ((CharacterAt(text, last).properties & kSpace) == 0) {
      break;
    }
    end = last;
  }
  return std::max(from, end);
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::vector<std::pair<absl::string_view, uint32_t>> contents;
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    contents.emplace_back(tokens_[i].content, i);
    (tokens_[i].special ? finds_special_ : finds_plain_) = true;
  }
  trie_ = ByteTrie(std::move(contents));
}

std::vector<AddedTokens::Part> AddedTokens::Split(absl::string_view text, bool trusted) const {
  std::vector<Part> parts;
  size_t done = 0;  // bytes that are in a part; rstrip may take it beyond the next match's beginning
  for (size_t at = 0; at < text.size();) {
    const std::optional<ByteTrie::Found> match = trie_.LongestAt(text, at);
    if (!match) {
      ++at;
      continue;
    }
    size_t begin = at, end = match->end;
    at = end;
    const AddedToken& token = tokens_[match->value];
    if ((token.special && !trusted) || (token.single_word && HasWordBeside(text, begin, end))) {
      continue;
    }
    if (token.lstrip) {
      begin = BeginOfSpaces(text, done, begin);
    }
    if (token.rstrip) {
      end = EndOfRun(text, end, kSpace);
    }
    if (done < begin) {
      parts.push_back({text.substr(done, begin - done), std::nullopt});
    }
    // Blanks that are a token of their own may have been taken by the one before, and then this one is not there.
    if (begin < end) {
      parts.push_back({text.substr(begin, end - begin), token.id});
    }
    done = end;
  }
  if (done < text.size()) {
    parts.push_back({text.substr(done), std::nullopt});
  }
  return parts;
}

}  // namespace quire
