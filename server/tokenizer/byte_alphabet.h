// How vocabularies name bytes. GPT-2's byte alphabet: how the names of a byte-level vocabulary spell bytes as printable
// characters.
//
// The bytes !..~, U+00A1..U+00AC and U+00AE..U+00FF are spelled by the character of their number, the other 68 by
// U+0100 and on, in order (openai/gpt-2, src/encoder.py, bytes_to_unicode). A space is "\u0120", a newline "\u010A".

#ifndef QUIRE_SERVER_TOKENIZER_BYTE_ALPHABET_H_
#define QUIRE_SERVER_TOKENIZER_BYTE_ALPHABET_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace quire {

// The bytes that `name` spells; nothing if some character of it is not of the alphabet.
std::optional<std::string> BytesOfName(absl::string_view name);

// The character that spells `byte`, as UTF-8.
std::string NameOfByte(uint8_t byte);

// The byte that `name` stands for in vocabularies of characters: "<0x0A>".
std::optional<uint8_t> ByteOfHexName(absl::string_view name);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_BYTE_ALPHABET_H_
