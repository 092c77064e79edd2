#include "server/tokenizer/byte_alphabet.h"

#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

constexpr uint32_t kFirstSubstitute = 0x100;
constexpr uint32_t kNumSubstitutes = 68;

constexpr bool SpellsItself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

// [i] the byte that U+0100 + i spells.
constexpr std::array<uint8_t, kNumSubstitutes> kSubstituted = [] {
  std::array<uint8_t, kNumSubstitutes> bytes = {};
  uint32_t count = 0;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    if (!SpellsItself(byte)) {
      bytes[count++] = static_cast<uint8_t>(byte);
    }
  }
  return bytes;
}();

}  // namespace

std::optional<std::string> BytesOfName(absl::string_view name) {
  std::string bytes;
  for (size_t at = 0; at < name.size();) {
    const Utf8Sequence next = NextUtf8(name.substr(at));
    if (next.code_point < kFirstSubstitute && SpellsItself(next.code_point)) {
      bytes += static_cast<char>(next.code_point);
    } else if (next.code_point >= kFirstSubstitute && next.code_point < kFirstSubstitute + kNumSubstitutes) {
      bytes += static_cast<char>(kSubstituted[next.code_point - kFirstSubstitute]);
    } else {
      return std::nullopt;
    }
    at += next.num_bytes;
  }
  return bytes;
}

std::string NameOfByte(uint8_t byte) {
  uint32_t code_point = byte;
  if (!SpellsItself(byte)) {
    for (code_point = kFirstSubstitute; kSubstituted[code_point - kFirstSubstitute] != byte; ++code_point) {
    }
  }
  if (code_point < 0x80) {
    return std::string(1, static_cast<char>(code_point));
  }
  return {static_cast<char>(0xC0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3F))};
}

std::optional<uint8_t> ByteOfHexName(absl::string_view name) {
  uint32_t byte = 0;
  if (name.size() != 6 || !absl::StartsWith(name, "<0x") || name[5] != '>') {
    return std::nullopt;
  }
  for (const char c : name.substr(3, 2)) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) {
      return std::nullopt;
    }
    const char digit = absl::ascii_tolower(static_cast<unsigned char>(c));
    byte = byte * 16 + static_cast<uint32_t>(digit <= '9' ? digit - '0' : digit - 'a' + 10);
  }
  return static_cast<uint8_t>(byte);
}

}  // namespace quire
