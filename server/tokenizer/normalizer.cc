#include "server/tokenizer/normalizer.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

std::string Run(const ToForm& step, absl::string_view text) { return Normalize(step.form, text); }

std::string Run(const ToLowerCase&, absl::string_view text) { return LowerCase(text); }

std::string Run(const StripSpaces& step, absl::string_view text) {
  const size_t begin = step.left ? EndOfRun(text, 0, kSpace) : 0;
  size_t end = text.size();
  while (step.right && end > begin) {
    const size_t last = BeginOfLast(text, end);
    if ((CharacterAt(text, last).properties & kSpace) == 0) {
      break;
    }
    end = last;
  }
  return std::string(text.substr(begin, end - begin));
}

std::string Run(const StripAccents&, absl::string_view text) {
  std::string kept;
  for (size_t at = 0; at < text.size();) {
    const TextCharacter next = CharacterAt(text, at);
    if ((next.properties & kAccent) == 0) {
      kept.append(text.data() + at, next.num_bytes);
    }
    at += next.num_bytes;
  }
  return kept;
}

std::string Run(const Replace& step, absl::string_view text) {
  std::string replaced;
  replaced.reserve(text.size() + text.size() / 2);
  Regex::Matcher matcher(step.pattern, text, Regex::Alphabet::kUtf8);
  size_t done = 0;
  while (const std::optional<Regex::Match> match = matcher.Next(done)) {
    replaced.append(text.data() + done, match->begin - done);
    replaced += step.content;
    done = match->end;
  }
  replaced.append(text.data() + done, text.size() - done);
  return replaced;
}

std::string Run(const Prepend& step, absl::string_view text) {
  return text.empty() ? std::string() : absl::StrCat(step.text, text);
}

std::string Run(const std::shared_ptr<const SentencePieceNormalizer>& step, absl::string_view text) {
  return step->Normalize(text);
}

// Whether the step leaves nothing of the first character.
struct DropsFirst {
  absl::string_view text;

  bool operator()(const StripSpaces& step) const {
    return step.left && (CharacterAt(text, 0).properties & kSpace) != 0;
  }
  bool operator()(const StripAccents&) const { return (CharacterAt(text, 0).properties & kAccent) != 0; }
  bool operator()(const Replace& step) const {
    const std::optional<Regex::Match> first = Regex::Matcher(step.pattern, text, Regex::Alphabet::kUtf8).Next(0);
    const bool replaces_first = first && first->begin == 0;
    // What takes the place of several characters stands where the last of them did.
    return replaces_first && (step.content.empty() || first->end > CharacterAt(text, 0).num_bytes);
  }
  template <typename Step>
  bool operator()(const Step&) const {
    return false;
  }
};

}  // namespace

absl::string_view Normalizer::Apply(absl::string_view text, std::string& storage, bool* dropped) const {
  for (const NormalizerStep& step : steps_) {
    if (dropped != nullptr && !text.empty()) {
      *dropped = *dropped || std::visit(DropsFirst{text}, step);
    }
    storage = std::visit([&](const auto& step) { return Run(step, text); }, step);
    text = storage;
  }
  return text;
}

}  // namespace quire
