#include "server/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

bool HasWordBeside(absl::string_view text, size_t begin, size_t end) {
  return (begin > 0 && (CharacterAt(text, BeginOfLast(text, begin)).classes & kWord) != 0) ||
         (end < text.size() && (CharacterAt(text, end).classes & kWord) != 0);
}

// Where the whitespace begins that ends at `end`, but not before `from`.
size_t BeginOfSpaces(absl::string_view text, size_t from, size_t end) {
  while (end > from) {
    const size_t last = BeginOfLast(text, end);
    if ((CharacterAt(text, last).classes & kSpace) == 0) {
      break;
    }
    end = last;
  }
  return std::max(from, end);
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)), token_at_(1) {
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    uint32_t node = kRoot;
    for (const char c : tokens_[i].content) {
      const uint64_t key = uint64_t{node} << 8 | static_cast<uint8_t>(c);
      const auto [child, is_new] = children_.try_emplace(key, static_cast<uint32_t>(token_at_.size()));
      if (is_new) {
        token_at_.emplace_back();
      }
      node = child->second;
    }
    token_at_[node] = i;
    begins_[static_cast<uint8_t>(tokens_[i].content[0])] = true;
    finds_something_ |= !tokens_[i].special;
  }
}

std::optional<AddedTokens::Match> AddedTokens::LongestAt(absl::string_view text, size_t begin) const {
  std::optional<Match> longest;
  uint32_t node = kRoot;
  for (size_t at = begin; at < text.size(); ++at) {
    const auto child = children_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[at]));
    if (child == children_.end()) {
      break;
    }
    node = child->second;
    if (token_at_[node]) {
      longest = Match{&tokens_[*token_at_[node]], at + 1};
    }
  }
  return longest;
}

std::vector<AddedTokens::Part> AddedTokens::Split(absl::string_view text) const {
  std::vector<Part> parts;
  size_t done = 0;  // bytes that are in a part; rstrip may take it beyond the next match's beginning
  for (size_t at = 0; at < text.size();) {
    const std::optional<Match> match = begins_[static_cast<uint8_t>(text[at])] ? LongestAt(text, at) : std::nullopt;
    if (!match) {
      ++at;
      continue;
    }
    size_t begin = at, end = match->end;
    at = end;
    if (match->token->special || (match->token->single_word && HasWordBeside(text, begin, end))) {
      continue;
    }
    if (match->token->lstrip) {
      begin = BeginOfSpaces(text, done, begin);
    }
    if (match->token->rstrip) {
      end = EndOfRun(text, end, kSpace);
    }
    if (done < begin) {
      parts.push_back({text.substr(done, begin - done), std::nullopt});
    }
    parts.push_back({text.substr(begin, end - begin), match->token->id});
    done = end;
  }
  if (done < text.size()) {
    parts.push_back({text.substr(done), std::nullopt});
  }
  return parts;
}

}  // namespace quire
