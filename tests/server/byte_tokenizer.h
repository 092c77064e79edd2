// A tokenizer for tests whose token ids are bytes: id 65 is "A". Id 256 is a special token, <|end|>.

#ifndef QUIRE_TESTS_SERVER_BYTE_TOKENIZER_H_
#define QUIRE_TESTS_SERVER_BYTE_TOKENIZER_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "kernels/check.h"
#include "server/tokenizer/tokenizer.h"

namespace quire {

constexpr uint32_t kByteTokenizerEnd = 256;

// The letter by which byte-level vocabularies spell a byte: itself if it is printable in Latin-1, else the next letter
// from U+0100 on.
inline std::string ByteLetter(int byte, int& next) {
  const bool printable = (byte >= 33 && byte < 127) || (byte >= 161 && byte < 173) || byte >= 174;
  const int code = printable ? byte : next++;
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

inline std::unique_ptr<Tokenizer> MakeByteTokenizer() {
  nlohmann::json vocab;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) vocab[ByteLetter(byte, next)] = byte;
  const nlohmann::json json = {
      {"version", "1.0"},
      {"added_tokens",
       {{{"id", kByteTokenizerEnd},
         {"content", "<|end|>"},
         {"single_word", false},
         {"lstrip", false},
         {"rstrip", false},
         {"normalized", false},
         {"special", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"vocab", vocab},
        {"merges", nlohmann::json::array()}}},
  };
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Parse(json.dump(), "byte tokenizer");
  Check(tokenizer.ok(), "the byte tokenizer parses");
  return *std::move(tokenizer);
}

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_BYTE_TOKENIZER_H_
