#include "server/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace quire {
namespace {

using Behavior = PreTokenizerStep::Behavior;
using Prefix = PreTokenizerStep::Prefix;

struct Part {
  size_t begin;
  size_t end;
  bool is_match;
};

// All of `text`, matches and what is between them.
std::vector<Part> PartsOf(const PreTokenizerStep& step, absl::string_view text) {
  std::vector<Part> parts;
  Regex::Matcher matcher(*step.splitter, text, step.alphabet);
  size_t done = 0;
  while (const std::optional<Regex::Match> match = matcher.Next(done)) {
    if (match->begin > done) {
      parts.push_back({done, match->begin, step.invert});
    }
    parts.push_back({match->begin, match->end, !step.invert});
    done = match->end;
  }
  if (done < text.size()) {
    parts.push_back({done, text.size(), step.invert});
  }
  return parts;
}

// The parts with matches merged as the behaviour says: each is then a piece.
std::vector<Part> Merged(Behavior behavior, std::vector<Part> parts) {
  std::vector<Part> merged;
  const bool backwards = behavior == Behavior::kMergedWithNext;
  if (backwards) {
    std::reverse(parts.begin(), parts.end());
  }
  bool previous_is_match = false;
  for (const Part& part : parts) {
    const bool joins =
        behavior == Behavior::kContiguous ? part.is_match == previous_is_match : part.is_match && !previous_is_match;
    previous_is_match = part.is_match;
    if (!joins || merged.empty()) {
      merged.push_back(part);
    } else if (backwards) {
      merged.back().begin = part.begin;
    } else {
      merged.back().end = part.end;
    }
  }
  if (backwards) {
    std::reverse(merged.begin(), merged.end());
  }
  return merged;
}

}  // namespace

void PreTokenizer::Run(size_t step, absl::string_view text, bool begins_text, Sink sink) const {
  if (step == steps_.size()) {
    sink(text);
    return;
  }
  const PreTokenizerStep& now = steps_[step];
  if (now.space.empty() && now.prefix == Prefix::kNone) {
    Cut(step, text, begins_text, sink);
    return;
  }
  std::string changed = now.space.empty() ? std::string(text) : absl::StrReplaceAll(text, {{" ", now.space}});
  const bool prefixed = now.prefix == Prefix::kEveryPiece || (now.prefix == Prefix::kFirstPiece && begins_text);
  if (prefixed && !absl::StartsWith(changed, now.prefix_text)) {
    changed.insert(0, now.prefix_text);
  }
  Cut(step, changed, begins_text, sink);
}

void PreTokenizer::Cut(size_t step, absl::string_view text, bool begins_text, Sink sink) const {
  const PreTokenizerStep& now = steps_[step];
  if (!now.splitter) {
    Run(step + 1, text, begins_text, sink);
    return;
  }
  if (now.behavior != Behavior::kIsolated && now.behavior != Behavior::kRemoved) {
    CutMerging(step, text, begins_text, sink);
    return;
  }
  const bool keeps_matches = now.behavior == Behavior::kIsolated || now.invert;
  const bool keeps_others = now.behavior == Behavior::kIsolated || !now.invert;
  Regex::Matcher matcher(*now.splitter, text, now.alphabet);
  size_t done = 0;
  while (done < text.size()) {
    const std::optional<Regex::Match> match = matcher.Next(done);
    const size_t begin = match ? match->begin : text.size();
    if (begin > done && keeps_others) {
      Run(step + 1, text.substr(done, begin - done), begins_text && done == 0, sink);
    }
    if (match && keeps_matches) {
      Run(step + 1, text.substr(begin, match->end - begin), begins_text && begin == 0, sink);
    }
    done = match ? match->end : text.size();
  }
}

void PreTokenizer::CutMerging(size_t step, absl::string_view text, bool begins_text, Sink sink) const {
  const PreTokenizerStep& now = steps_[step];
  for (const Part& part : Merged(now.behavior, PartsOf(now, text))) {
    Run(step + 1, text.substr(part.begin, part.end - part.begin), begins_text && part.begin == 0, sink);
  }
}

}  // namespace quire
