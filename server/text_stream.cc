#include "server/text_stream.h"

#include <algorithm>
#include <utility>

#include "server/tokenizer/unicode.h"

namespace quire {

TextStream::Stop::Stop(std::string stop) : text(std::move(stop)), border(text.size()) {
  for (size_t i = 1, length = 0; i < text.size(); ++i) {
    while (length > 0 && text[i] != text[length]) {
      length = border[length - 1];
    }
    length += text[i] == text[length] ? 1 : 0;
    border[i] = static_cast<uint32_t>(length);
  }
}

bool TextStream::Stop::Advance(char byte) {
  while (matched > 0 && text[matched] != byte) {
    matched = border[matched - 1];
  }
  matched += text[matched] == byte ? 1 : 0;
  return matched == text.size();
}

TextStream::TextStream(const Tokenizer& tokenizer, Options options, absl::Span<const uint32_t> prompt)
    : tokenizer_(tokenizer),
      skip_special_tokens_(options.skip_special_tokens),
      include_stop_(options.include_stop),
      min_tokens_(options.min_tokens),
      position_(tokenizer.Beginning()) {
  for (size_t i = 0; i < prompt.size() && !position_.over; ++i) {
    if (!skip_special_tokens_ || !tokenizer_.IsSpecial(prompt[i])) {
      tokenizer_.NextBytes(prompt[i], position_);
    }
  }
  for (std::string& stop : options.stop) {
    stops_.emplace_back(std::move(stop));
  }
}

std::optional<size_t> TextStream::Push(uint32_t id, std::string& text) {
  ++num_tokens_;
  const size_t looked_at = held_.size();
  Take(id);
  if (const std::optional<Match> match = FindStop(looked_at)) {
    const size_t stop_bytes = stops_[match->stop].text.size();
    text.append(held_, 0, include_stop_ ? match->end : match->end - stop_bytes);
    held_.clear();
    unfinished_.clear();
    return match->stop;
  }
  size_t waiting = 0;
  for (const Stop& stop : stops_) {
    waiting = std::max(waiting, stop.matched);
  }
  text.append(held_, 0, held_.size() - waiting);
  held_.erase(0, held_.size() - waiting);
  return std::nullopt;
}

void TextStream::PushStopToken(uint32_t id, std::string& text) {
  if (include_stop_) {
    Take(id);
    text += held_;
    held_.clear();
  }
}

void TextStream::Finish(std::string& text) {
  AppendUtf8(unfinished_, /*at_end=*/true, held_);
  text += held_;
  unfinished_.clear();
  held_.clear();
}

void TextStream::Take(uint32_t id) {
  if (skip_special_tokens_ && tokenizer_.IsSpecial(id)) {
    return;
  }
  const absl::string_view bytes = tokenizer_.NextBytes(id, position_);
  unfinished_.append(bytes.data(), bytes.size());
  unfinished_.erase(0, AppendUtf8(unfinished_, /*at_end=*/false, held_));
}

std::optional<TextStream::Match> TextStream::FindStop(size_t from) {
  for (size_t at = from; at < held_.size() && !stops_.empty(); ++at) {
    std::optional<size_t> longest;  // of the stops that complete here: the one that begins first
    for (size_t i = 0; i < stops_.size(); ++i) {
      if (!stops_[i].Advance(held_[at])) {
        continue;
      }
      if (num_tokens_ < min_tokens_) {
        stops_[i].matched = stops_[i].border.back();  // it does not count; what follows may still begin within it
      } else if (!longest || stops_[i].text.size() > stops_[*longest].text.size()) {
        longest = i;
      }
    }
    if (longest) {
      return Match{*longest, at + 1};
    }
  }
  return std::nullopt;
}

}  // namespace quire
