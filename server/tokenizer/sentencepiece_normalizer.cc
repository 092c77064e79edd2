#include "server/tokenizer/sentencepiece_normalizer.h"

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

constexpr absl::string_view kSpaceSymbol = "\u2581";
constexpr absl::string_view kReplacement = "\uFFFD";

uint32_t LittleEndian32(absl::string_view bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) {
    value = value << 8 | static_cast<uint8_t>(bytes[i]);
  }
  return value;
}

// A unit of Darts-clone's double array (darts.h, DoubleArrayUnit).
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t ValueOf(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t LabelOf(uint32_t unit) { return unit & 0x800000FF; }
uint32_t OffsetOf(uint32_t unit) { return (unit >> 10) << ((unit & (1 << 9)) >> 6); }

}  // namespace

absl::StatusOr<SentencePieceNormalizer> SentencePieceNormalizer::Create(const SentencePieceNormalizerSpec& spec,
                                                                        const std::vector<std::string>& untouched) {
  SentencePieceNormalizer normalizer(spec);
  normalizer.spec_.precompiled_charsmap.clear();
  std::vector<std::pair<absl::string_view, uint32_t>> strings;
  for (const std::string& text : untouched) {
    strings.emplace_back(text, 0);
  }
  normalizer.untouched_ = ByteTrie(std::move(strings));
  const absl::string_view blob = spec.precompiled_charsmap;
  if (blob.empty()) {
    return normalizer;
  }
  const uint64_t trie_bytes = blob.size() < 4 ? 0 : LittleEndian32(blob);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes + 4 >= blob.size() || blob.back() != '\0') {
    return absl::InvalidArgumentError(
        absl::StrCat("precompiled_charsmap of ", blob.size(), " bytes has a trie of ", trie_bytes,
                     "; allowed: a multiple of 4 below the size, and texts that end with NUL behind it"));
  }
  for (size_t at = 4; at < 4 + trie_bytes; at += 4) {
    normalizer.trie_.push_back(LittleEndian32(blob.substr(at)));
  }
  normalizer.replacements_ = std::string(blob.substr(4 + trie_bytes));
  return normalizer;
}

std::pair<absl::string_view, size_t> SentencePieceNormalizer::Replacement(absl::string_view text, size_t begin) const {
  std::pair<absl::string_view, size_t> longest("", begin);
  if (trie_.empty()) {
    return longest;
  }
  uint32_t at = OffsetOf(trie_[0]);
  for (size_t i = begin; i < text.size(); ++i) {
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    at ^= byte;
    if (byte == 0 || at >= trie_.size() || LabelOf(trie_[at]) != byte) {
      break;
    }
    const uint32_t unit = trie_[at];
    at ^= OffsetOf(unit);
    if (HasLeaf(unit) && at < trie_.size() && ValueOf(trie_[at]) < replacements_.size()) {
      longest = {replacements_.c_str() + ValueOf(trie_[at]), i + 1};
    }
  }
  return longest;
}

std::pair<absl::string_view, size_t> SentencePieceNormalizer::NextAt(absl::string_view text, size_t begin) const {
  if (const auto found = untouched_.LongestAt(text, begin)) {
    return {text.substr(begin, found->end - begin), found->end};
  }
  if (const auto replaced = Replacement(text, begin); replaced.second > begin) {
    return replaced;
  }
  const Utf8Sequence next = NextUtf8(text.substr(begin));
  if (next.kind != Utf8Sequence::kCharacter) {
    return {kReplacement, begin + 1};
  }
  return {text.substr(begin, next.num_bytes), begin + next.num_bytes};
}

std::string SentencePieceNormalizer::Normalize(absl::string_view text) const {
  const absl::string_view space = spec_.escape_whitespaces ? kSpaceSymbol : " ";
  size_t at = 0;
  while (spec_.remove_extra_whitespaces && at < text.size()) {
    const auto [part, end] = NextAt(text, at);
    if (part != " ") {
      break;
    }
    at = end;
  }
  if (at == text.size()) {
    return "";
  }
  std::string normalized;
  normalized.reserve(text.size() + text.size() / 2);
  const auto add_space = [&] { normalized.append(space.data(), space.size()); };
  if (spec_.add_dummy_prefix) {
    add_space();
  }
  bool after_space = spec_.remove_extra_whitespaces;  // further ones vanish
  while (at < text.size()) {
    auto [part, end] = NextAt(text, at);
    while (after_space && absl::ConsumePrefix(&part, " ")) {
    }
    for (const char c : part) {
      if (c == ' ') {
        add_space();
      } else {
        normalized += c;
      }
    }
    if (!part.empty()) {
      after_space = spec_.remove_extra_whitespaces && absl::EndsWith(part, " ");
    }
    at = end;
  }
  while (spec_.remove_extra_whitespaces && absl::EndsWith(normalized, space)) {
    normalized.resize(normalized.size() - space.size());
  }
  return normalized;
}

}  // namespace quire
