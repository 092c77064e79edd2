#include "server/tokenizer/normalization.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "server/tokenizer/normalization_tables.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

// Hangul syllables (Unicode 15, section 3.12).
constexpr uint32_t kSBase = 0xAC00, kLBase = 0x1100, kVBase = 0x1161, kTBase = 0x11A7;
constexpr uint32_t kLCount = 19, kVCount = 21, kTCount = 28, kSCount = kLCount * kVCount * kTCount;

// A code point and its canonical combining class; or a byte that is no UTF-8, as kRawByte | byte of class 0.
struct Character {
  uint32_t code_point;
  uint8_t ccc;
};
constexpr uint32_t kRawByte = 1u << 31;

std::optional<absl::Span<const char32_t>> Find(absl::Span<const Expansion> expansions, uint32_t code_point) {
  const auto found = std::lower_bound(expansions.begin(), expansions.end(), code_point,
                                      [](const Expansion& e, uint32_t c) { return e.code_point < c; });
  if (found == expansions.end() || found->code_point != code_point) {
    return std::nullopt;
  }
  return GetNormalizationTables().arena.subspan(found->begin, found->size);
}

uint8_t CombiningClass(uint32_t code_point) {
  const absl::Span<const CombiningRange> ranges = GetNormalizationTables().combining;
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), code_point,
                                      [](uint32_t c, const CombiningRange& range) { return c < range.first; });
  return after != ranges.begin() && code_point <= after[-1].last ? after[-1].ccc : 0;
}

// What `first` and `second` compose to; 0 if nothing.
uint32_t Compose(uint32_t first, uint32_t second) {
  if (first - kLBase < kLCount && second - kVBase < kVCount) {
    return kSBase + ((first - kLBase) * kVCount + (second - kVBase)) * kTCount;
  }
  if (first - kSBase < kSCount && (first - kSBase) % kTCount == 0 && second - kTBase - 1 < kTCount - 1) {
    return first + (second - kTBase);
  }
  const absl::Span<const Composition> pairs = GetNormalizationTables().compositions;
  const auto found = std::lower_bound(pairs.begin(), pairs.end(), Composition{first, second, 0},
                                      [](const Composition& a, const Composition& b) {
                                        return a.first != b.first ? a.first < b.first : a.second < b.second;
                                      });
  return found != pairs.end() && found->first == first && found->second == second ? found->composed : 0;
}

void AppendDecomposed(uint32_t code_point, bool compatible, std::vector<Character>& out) {
  if (code_point - kSBase < kSCount) {
    const uint32_t syllable = code_point - kSBase;
    out.push_back({kLBase + syllable / (kVCount * kTCount), 0});
    out.push_back({kVBase + syllable % (kVCount * kTCount) / kTCount, 0});
    if (syllable % kTCount != 0) {
      out.push_back({kTBase + syllable % kTCount, 0});
    }
    return;
  }
  const NormalizationTables& tables = GetNormalizationTables();
  std::optional<absl::Span<const char32_t>> parts;
  if (compatible) {
    parts = Find(tables.compatible, code_point);
  }
  if (!parts) {
    parts = Find(tables.canonical, code_point);
  }
  if (!parts) {
    out.push_back({code_point, CombiningClass(code_point)});
    return;
  }
  for (const char32_t part : *parts) {
    out.push_back({part, CombiningClass(part)});
  }
}

void Decompose(absl::string_view text, bool compatible, std::vector<Character>& out) {
  out.clear();
  for (size_t at = 0; at < text.size();) {
    const Utf8Sequence next = NextUtf8(text.substr(at));
    if (next.kind != Utf8Sequence::kCharacter) {
      out.push_back({kRawByte | static_cast<uint8_t>(text[at++]), 0});
      continue;
    }
    at += next.num_bytes;
    if (next.code_point < 0x80) {
      out.push_back({next.code_point, 0});
    } else {
      AppendDecomposed(next.code_point, compatible, out);
    }
  }
  // Marks in a row go by their classes, those of one class as they came.
  for (auto begin = out.begin(); begin != out.end();) {
    begin = std::find_if(begin, out.end(), [](const Character& c) { return c.ccc != 0; });
    const auto end = std::find_if(begin, out.end(), [](const Character& c) { return c.ccc == 0; });
    std::stable_sort(begin, end, [](const Character& a, const Character& b) { return a.ccc < b.ccc; });
    begin = end;
  }
}

// The canonical composition algorithm (definition D117): a character joins the last starter if no character between
// them is a starter or has its class or a larger one.
void ComposeInPlace(std::vector<Character>& text) {
  std::optional<size_t> starter;
  uint8_t last_ccc = 0;  // of what is kept behind the starter
  size_t kept = 0;
  for (const Character& c : text) {
    const bool adjacent = starter && kept == *starter + 1;
    if (starter && (adjacent || last_ccc < c.ccc)) {
      if (const uint32_t composed = Compose(text[*starter].code_point, c.code_point); composed != 0) {
        text[*starter].code_point = composed;
        continue;
      }
    }
    if (c.ccc == 0) {
      starter = kept;
    }
    last_ccc = c.ccc;
    text[kept++] = c;
  }
  text.resize(kept);
}

// The first byte from `at` on that is no ASCII, or the text's end.
size_t EndOfAscii(absl::string_view text, size_t at) {
  constexpr uint64_t kHighBits = 0x8080808080808080u;
  for (uint64_t word = 0; at + sizeof word <= text.size(); at += sizeof word) {
    std::memcpy(&word, text.data() + at, sizeof word);
    if ((word & kHighBits) != 0) {
      break;
    }
  }
  while (at < text.size() && static_cast<uint8_t>(text[at]) < 0x80) {
    ++at;
  }
  return at;
}

size_t EndOfWide(absl::string_view text, size_t at) {
  while (at < text.size() && static_cast<uint8_t>(text[at]) >= 0x80) {
    ++at;
  }
  return at;
}

void AppendNormalized(NormalizationForm form, absl::string_view text, std::vector<Character>& characters,
                      std::string& normalized) {
  const bool compatible = form == NormalizationForm::kNfkc || form == NormalizationForm::kNfkd;
  Decompose(text, compatible, characters);
  if (form == NormalizationForm::kNfc || form == NormalizationForm::kNfkc) {
    ComposeInPlace(characters);
  }
  for (const Character& c : characters) {
    if ((c.code_point & kRawByte) != 0) {
      normalized += static_cast<char>(c.code_point);
    } else {
      AppendCodePoint(c.code_point, normalized);
    }
  }
}

}  // namespace

std::string Normalize(NormalizationForm form, absl::string_view text) {
  std::string normalized;
  normalized.reserve(text.size() + text.size() / 8);
  std::vector<Character> scratch;
  // No form changes ASCII, which begins anew for what follows and joins nothing before it: only the last of a run may
  // take marks behind it.
  for (size_t at = 0; at < text.size();) {
    const size_t wide = EndOfAscii(text, at);
    const size_t begin = wide > at && wide < text.size() ? wide - 1 : wide;
    normalized.append(text.data() + at, begin - at);
    at = EndOfWide(text, wide);
    if (at > begin) {
      AppendNormalized(form, text.substr(begin, at - begin), scratch, normalized);
    }
  }
  return normalized;
}

std::string LowerCase(absl::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Sequence next = NextUtf8(text.substr(at));
    const std::optional<absl::Span<const char32_t>> parts = Find(GetNormalizationTables().lower, next.code_point);
    if (next.kind != Utf8Sequence::kCharacter || !parts) {
      lower.append(text.data() + at, next.num_bytes);
    } else {
      for (const char32_t part : *parts) {
        AppendCodePoint(part, lower);
      }
    }
    at += next.num_bytes;
  }
  return lower;
}

}  // namespace quire
