#include "server/tokenizer/splitter.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

struct KnownRegex {
  absl::string_view regex;
  Splitter splitter;
  absl::string_view name;
};

constexpr KnownRegex kKnown[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", Splitter::kGpt2, "GPT-2"},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
     R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     Splitter::kLlama3, "Llama 3"},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
     R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     Splitter::kQwen2, "Qwen2"},
};

bool IsLineEnd(char c) { return c == '\r' || c == '\n'; }

// Bytes of the contraction ('s, 't, 're, 've, 'm, 'll, 'd) that `text` begins with, 0 if none. U+017F folds to s.
size_t ContractionBytes(absl::string_view text, bool ignore_case) {
  if (text.size() < 2 || text[0] != '\'') {
    return 0;
  }
  const auto lower = [&](size_t i) {
    return i >= text.size() ? '\0' : ignore_case ? absl::ascii_tolower(text[i]) : text[i];
  };
  const char first = lower(1), second = lower(2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') {
    return 2;
  }
  if (((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l')) {
    return 3;
  }
  return ignore_case && absl::StartsWith(text.substr(1), "\u017F") ? 3 : 0;
}

// \s+(?!\S)|\s+ at a run of whitespace that ends at `end`: all of it at the text's end, else all but its last
// character, which the next word may want, unless there is only that one.
size_t EndOfSpaces(absl::string_view text, size_t begin, size_t end) {
  if (end == text.size()) {
    return end;
  }
  const size_t last = BeginOfLast(text, end);
  return last > begin ? last : end;
}

size_t EndOfGpt2Word(absl::string_view text, size_t begin) {
  if (const size_t contraction = ContractionBytes(text.substr(begin), /*ignore_case=*/false)) {
    return begin + contraction;
  }
  const size_t at = text[begin] == ' ' && begin + 1 < text.size() ? begin + 1 : begin;
  const TextCharacter character = CharacterAt(text, at);
  const uint8_t kind = character.classes & (kLetter | kNumber | kOther);
  if (kind != 0) {
    return EndOfRun(text, at + character.num_bytes, kind);
  }
  return EndOfSpaces(text, begin, EndOfRun(text, begin, kSpace));
}

// \p{N}{1,max_digits} from a number on.
size_t EndOfNumber(absl::string_view text, size_t at, int max_digits) {
  for (int digits = 0; digits < max_digits && at < text.size(); ++digits) {
    const TextCharacter character = CharacterAt(text, at);
    if ((character.classes & kNumber) == 0) {
      break;
    }
    at += character.num_bytes;
  }
  return at;
}

size_t EndOfLlama3Word(absl::string_view text, size_t begin, int max_digits) {
  if (const size_t contraction = ContractionBytes(text.substr(begin), /*ignore_case=*/true)) {
    return begin + contraction;
  }
  const TextCharacter first = CharacterAt(text, begin);
  const size_t second = begin + first.num_bytes;
  if ((first.classes & kLetter) != 0) {
    return EndOfRun(text, second, kLetter);
  }
  if ((first.classes & kNumber) != 0) {
    return EndOfNumber(text, begin, max_digits);
  }
  // [^\r\n\p{L}\p{N}]?\p{L}+: any one character that is no line end goes with the letters after it.
  const uint8_t next = second < text.size() ? CharacterAt(text, second).classes : 0;
  if (!IsLineEnd(text[begin]) && (next & kLetter) != 0) {
    return EndOfRun(text, second, kLetter);
  }
  if ((first.classes & kOther) != 0 || (text[begin] == ' ' && (next & kOther) != 0)) {
    size_t end = EndOfRun(text, second, kOther);
    while (end < text.size() && IsLineEnd(text[end])) {
      ++end;
    }
    return end;
  }
  // \s*[\r\n]+ takes the whitespace up to its last line end.
  const size_t end = EndOfRun(text, begin, kSpace);
  for (size_t i = end; i > begin; --i) {
    if (IsLineEnd(text[i - 1])) {
      return i;
    }
  }
  return EndOfSpaces(text, begin, end);
}

}  // namespace

std::optional<Splitter> SplitterOf(absl::string_view regex) {
  for (const KnownRegex& known : kKnown) {
    if (known.regex == regex) {
      return known.splitter;
    }
  }
  return std::nullopt;
}

std::string KnownSplitters() {
  std::string names;
  for (const KnownRegex& known : kKnown) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", known.name);
  }
  return names;
}

size_t EndOfWord(Splitter splitter, absl::string_view text, size_t begin) {
  switch (splitter) {
    case Splitter::kGpt2:
      return EndOfGpt2Word(text, begin);
    case Splitter::kLlama3:
      return EndOfLlama3Word(text, begin, 3);
    case Splitter::kQwen2:
      return EndOfLlama3Word(text, begin, 1);
  }
  return text.size();
}

}  // namespace quire
