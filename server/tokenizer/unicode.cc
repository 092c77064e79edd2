#include "server/tokenizer/unicode.h"

#include <algorithm>

namespace quire {
namespace {

constexpr uint32_t kReplacement = 0xFFFD;
constexpr absl::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

uint8_t ByteAt(absl::string_view bytes, size_t at) { return static_cast<uint8_t>(bytes[at]); }

// Which second bytes may follow a lead byte, and how long the character is (table 3-7); length 0: no lead byte.
struct Lead {
  uint8_t length;
  uint8_t second_min;
  uint8_t second_max;
};

Lead LeadOf(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) {
    return {2, 0x80, 0xBF};
  }
  if (byte >= 0xE0 && byte <= 0xEF) {
    return {3, static_cast<uint8_t>(byte == 0xE0 ? 0xA0 : 0x80), static_cast<uint8_t>(byte == 0xED ? 0x9F : 0xBF)};
  }
  if (byte >= 0xF0 && byte <= 0xF4) {
    return {4, static_cast<uint8_t>(byte == 0xF0 ? 0x90 : 0x80), static_cast<uint8_t>(byte == 0xF4 ? 0x8F : 0xBF)};
  }
  return {0, 0, 0};
}

}  // namespace

uint8_t PropertiesOf(uint32_t code_point) {
  const absl::Span<const CodePointRange> ranges = CodePointRanges();
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), code_point,
                                      [](uint32_t c, const CodePointRange& range) { return c < range.first; });
  return after != ranges.begin() && code_point <= after[-1].last ? after[-1].properties : 0;
}

Utf8Sequence NextUtf8(absl::string_view bytes) {
  const uint8_t first = ByteAt(bytes, 0);
  if (first < 0x80) {
    return {Utf8Sequence::kCharacter, 1, first};
  }
  const Lead lead = LeadOf(first);
  if (lead.length == 0) {
    return {Utf8Sequence::kIllFormed, 1, kReplacement};
  }
  uint32_t code_point = first & (0x7F >> lead.length);
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == bytes.size()) {
      return {Utf8Sequence::kUnfinished, i, kReplacement};
    }
    const uint8_t byte = ByteAt(bytes, i);
    if (byte < (i == 1 ? lead.second_min : 0x80) || byte > (i == 1 ? lead.second_max : 0xBF)) {
      return {Utf8Sequence::kIllFormed, i, kReplacement};
    }
    code_point = code_point << 6 | (byte & 0x3F);
  }
  return {Utf8Sequence::kCharacter, lead.length, code_point};
}

size_t AppendUtf8(absl::string_view bytes, bool at_end, std::string& text) {
  size_t at = 0;
  while (at < bytes.size()) {
    const size_t begin = at;
    Utf8Sequence next = {Utf8Sequence::kCharacter, 0, 0};
    while (at < bytes.size() && (next = NextUtf8(bytes.substr(at))).kind == Utf8Sequence::kCharacter) {
      at += next.num_bytes;
    }
    text.append(bytes.data() + begin, at - begin);
    if (at == bytes.size() || (next.kind == Utf8Sequence::kUnfinished && !at_end)) {
      break;
    }
    text.append(kReplacementUtf8.data(), kReplacementUtf8.size());
    at += next.num_bytes;
  }
  return at;
}

TextCharacter CharacterAt(absl::string_view text, size_t at) {
  const Utf8Sequence next = NextUtf8(text.substr(at));
  if (next.kind != Utf8Sequence::kCharacter) {
    return {0, 1};
  }
  return {PropertiesOf(next.code_point), static_cast<uint8_t>(next.num_bytes)};
}

size_t EndOfRun(absl::string_view text, size_t at, uint8_t properties) {
  while (at < text.size()) {
    const TextCharacter character = CharacterAt(text, at);
    if ((character.properties & properties) == 0) {
      break;
    }
    at += character.num_bytes;
  }
  return at;
}

void AppendCodePoint(uint32_t code_point, std::string& text) {
  const auto continuation = [&](int shift) { text += static_cast<char>(0x80 | (code_point >> shift & 0x3F)); };
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    text += static_cast<char>(0xC0 | code_point >> 6);
    continuation(0);
  } else if (code_point < 0x10000) {
    text += static_cast<char>(0xE0 | code_point >> 12);
    continuation(6);
    continuation(0);
  } else {
    text += static_cast<char>(0xF0 | code_point >> 18);
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

size_t BeginOfLast(absl::string_view text, size_t end) {
  for (size_t num_bytes = 2; num_bytes <= 4 && num_bytes <= end; ++num_bytes) {
    const Utf8Sequence last = NextUtf8(text.substr(end - num_bytes, num_bytes));
    if (last.kind == Utf8Sequence::kCharacter && last.num_bytes == num_bytes) {
      return end - num_bytes;
    }
  }
  return end - 1;
}

}  // namespace quire
